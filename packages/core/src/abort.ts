import type { Clock } from "./clock.js";
import { SlimeError } from "./errors.js";

/** Aborts when any of the given signals does, or when `timeoutMs` of the clock's time has passed. Disposing stops the timer. */
export interface Deadline extends Disposable {
  readonly signal: AbortSignal;
}

/** @param what names the work for the message: "call train on actor_…". */
export function deadline(clock: Clock, timeoutMs: number | null, what: string, ...signals: readonly (AbortSignal | undefined)[]): Deadline {
  const controller = new AbortController();
  const detach: (() => void)[] = [];
  const dispose = () => {
    for (const undo of detach.splice(0)) undo();
  };
  const abort = (reason: unknown) => {
    dispose();
    controller.abort(reason);
  };
  for (const signal of signals) {
    if (signal === undefined) continue;
    if (signal.aborted) {
      abort(signal.reason);
      break;
    }
    const onAbort = () => abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    detach.push(() => signal.removeEventListener("abort", onAbort));
  }
  if (timeoutMs !== null && !controller.signal.aborted) {
    const timer = clock.after(timeoutMs, () =>
      abort(new SlimeError("call.deadline", `${what} did not finish within ${timeoutMs} ms`, { what, timeoutMs })),
    );
    detach.push(() => timer.cancel());
  }
  return { signal: controller.signal, [Symbol.dispose]: dispose };
}

/** Rejects with the signal's reason as soon as it aborts; otherwise follows `work`. The work itself is not stopped by this. */
export function abortable<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
