import type { Clock } from "@slime/core";
import { cancelled } from "../channel-call.js";
import type { WaitOptions } from "../handle-types.js";
import { runtimeLimits } from "../limits.js";

/** Starts to wait for something; the function returned undoes what waits. */
export type StartWaiting<T> = (done: (value: T) => void, failed: (error: unknown) => void) => () => void;

/**
 * One wait for the head within the options' time (default `controlTimeoutMs`; null waits on) and until their signal aborts.
 * @param late the error when the time is over. @throws that, `call.cancelled`, or what the wait failed with.
 */
export function withinTime<T>(
  clock: Clock,
  options: WaitOptions | undefined,
  late: (timeoutMs: number) => unknown,
  start: StartWaiting<T>,
): Promise<T> {
  const timeoutMs = options?.timeoutMs === undefined ? runtimeLimits.controlTimeoutMs : options.timeoutMs;
  const signal = options?.signal;
  return new Promise<T>((resolve, reject) => {
    const end = () => {
      timer?.cancel();
      signal?.removeEventListener("abort", onAbort);
    };
    const failed = (error: unknown) => {
      end();
      reject(error);
    };
    const onAbort = () => {
      cancel();
      failed(cancelled("a request to the head", signal?.reason));
    };
    const cancel = start((value) => {
      end();
      resolve(value);
    }, failed);
    const timer =
      timeoutMs === null
        ? null
        : clock.after(timeoutMs, () => {
            cancel();
            failed(late(timeoutMs));
          });
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
  });
}
