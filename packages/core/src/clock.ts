/** Time as an argument. `nowMs` is monotonic and only differences mean something; `wallMs` is for display and records. */
export interface Clock {
  readonly nowMs: () => number;
  /** Milliseconds since 1970, for people; never compared to decide anything. */
  readonly wallMs: () => number;
  /** Calls back once after `delayMs`, unless cancelled. A timer does not keep a process alive by itself. */
  readonly after: (delayMs: number, run: () => void) => Timer;
}

export interface Timer {
  readonly cancel: () => void;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(delayMs, run) {
    const handle = setTimeout(run, Math.max(0, delayMs));
    handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};

/** Waits `delayMs` of the clock's time; rejects with the signal's reason when it aborts first. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.after(delayMs, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
