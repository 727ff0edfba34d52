import type { Clock } from "../clock.js";

/** A clock that moves only when told to; timers fire in order of time, then of creation (V1). */
export interface VirtualClock extends Clock {
  /** Moves time on by `ms`, firing every timer that falls due, each at its own time. Synchronous timers only. */
  readonly advance: (ms: number) => void;
  /** As `advance`, but lets promises settle after each timer, so that what they start may set timers of its own. */
  readonly run: (ms: number) => Promise<void>;
  /** Timers not yet fired nor cancelled. */
  readonly pending: () => number;
}

export function virtualClock(startMs = 0): VirtualClock {
  let now = startMs;
  let sequence = 0;
  const timers = new Set<{ readonly at: number; readonly order: number; readonly run: () => void }>();
  const next = (until: number) => {
    let first: { readonly at: number; readonly order: number; readonly run: () => void } | undefined;
    for (const timer of timers) {
      if (timer.at <= until && (first === undefined || timer.at < first.at || (timer.at === first.at && timer.order < first.order)))
        first = timer;
    }
    return first;
  };
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  return {
    nowMs: () => now,
    wallMs: () => 1_700_000_000_000 + Math.floor(now),
    after(delayMs, run) {
      const timer = { at: now + Math.max(0, delayMs), order: sequence++, run };
      timers.add(timer);
      return { cancel: () => void timers.delete(timer) };
    },
    advance(ms) {
      const until = now + ms;
      for (let timer = next(until); timer !== undefined; timer = next(until)) {
        timers.delete(timer);
        now = timer.at;
        timer.run();
      }
      now = until;
    },
    async run(ms) {
      const until = now + ms;
      await settle();
      for (let timer = next(until); timer !== undefined; timer = next(until)) {
        timers.delete(timer);
        now = timer.at;
        timer.run();
        await settle();
      }
      now = until;
      await settle();
    },
    pending: () => timers.size,
  };
}
