/** Calls with an idempotency key outlive the connection they came over: their signal must, too. */
import type { IncomingCall } from "@slime/rpc";
import { isPromise } from "./executor.js";

/** The caller of a call with a key may come back for its result after its connection broke. */
export function mayRepeat(call: IncomingCall): boolean {
  return call.idempotencyKey !== null && call.peer.ended;
}

/** A signal of its own for one call. */
export interface LastingSignal {
  readonly signal: AbortSignal;
  /** The call is over: it listens to nobody any more. */
  readonly release: () => void;
}

/** The signal of a call with a key: the end of one caller's connection does not stop it, its wish and the actor's end do. */
export function lastingSignal(call: IncomingCall, ending: AbortSignal): LastingSignal {
  const controller = new AbortController();
  const follow = () => {
    if (!mayRepeat(call)) controller.abort(call.signal.reason);
  };
  const end = () => controller.abort(ending.reason);
  if (call.aborted) follow();
  else call.signal.addEventListener("abort", follow, { once: true });
  if (ending.aborted) end();
  else ending.addEventListener("abort", end, { once: true });
  return {
    signal: controller.signal,
    release() {
      call.signal.removeEventListener("abort", follow);
      ending.removeEventListener("abort", end);
    },
  };
}

/** Runs `work` and then `release`, whatever becomes of it; what is done at once stays so. */
export function thenRelease(work: () => unknown, release: () => void): unknown {
  let result: unknown;
  try {
    result = work();
  } catch (error) {
    release();
    throw error;
  }
  if (!isPromise(result)) {
    release();
    return result;
  }
  return result.then(
    (value) => {
      release();
      return value;
    },
    (error: unknown) => {
      release();
      throw error;
    },
  );
}
