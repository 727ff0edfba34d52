import { type Clock, deadline, type Logger, SlimeError } from "@slime/core";
import { cancelled } from "./channel-call.js";
import type { WaitOptions } from "./handle-types.js";
import { runtimeLimits } from "./limits.js";

/** Something another process will say. */
export interface Waiting<T> extends WaitOptions {
  /** Whom it waits for, by now: "Counter actor_… to be ALIVE; it is PENDING_CREATION: …". */
  readonly what: () => string;
  /** The value once there is one; throws when there will be none. */
  readonly check: () => { readonly value: T } | null;
  /** Calls back when `check` may answer differently. */
  readonly listen: (changed: () => void) => () => void;
  /** In place of `call.deadline`, an error of the moment the time ran out. */
  readonly late?: (timeoutMs: number) => unknown;
  /** When the first report of a long wait is due; default: as the later ones. */
  readonly reportFirstMs?: number;
  /** More to say in the report of a long wait; never rejects. */
  readonly inquire?: () => Promise<Readonly<Record<string, unknown>>>;
}

/** Waits; says every 30 s (the first time after `reportFirstMs`) whom it waits for. @throws what `check` throws, `call.deadline`, `call.cancelled`. */
export async function waitUntil<T>(parts: { readonly clock: Clock; readonly log: Logger }, awaited: Waiting<T>): Promise<T> {
  const { clock, log } = parts;
  const first = awaited.check();
  if (first !== null) return first.value;
  const startedAt = clock.nowMs();
  const timeoutMs = awaited.timeoutMs ?? null;
  const cleanup: (() => void)[] = [];
  try {
    return await new Promise<T>((resolve, reject) => {
      const attempt = (give: () => void) => {
        try {
          give();
        } catch (error) {
          reject(error);
        }
      };
      cleanup.push(
        awaited.listen(() =>
          attempt(() => {
            const now = awaited.check();
            if (now !== null) resolve(now.value);
          }),
        ),
      );
      const limit = deadline(clock, timeoutMs, "", awaited.signal);
      const stop = () => {
        const what = `waiting for ${awaited.what()}`;
        if (awaited.signal?.aborted) return reject(cancelled(what, awaited.signal.reason));
        const waitedMs = timeoutMs ?? 0;
        reject(
          awaited.late?.(waitedMs) ??
            new SlimeError("call.deadline", `gave up after ${waitedMs} ms of ${what}`, { what, timeoutMs: waitedMs }),
        );
      };
      if (limit.signal.aborted) return stop();
      limit.signal.addEventListener("abort", stop, { once: true });
      cleanup.push(() => limit[Symbol.dispose]());
      const report = (afterMs: number) => {
        const timer = clock.after(afterMs, () => {
          void (awaited.inquire?.() ?? Promise.resolve({})).then((more) =>
            log.warn("runtime.waiting", { for: awaited.what(), waitedMs: Math.round(clock.nowMs() - startedAt), ...more }),
          );
          report(runtimeLimits.waitReportMs);
        });
        cancelReport = () => timer.cancel();
      };
      let cancelReport = () => {};
      report(awaited.reportFirstMs ?? runtimeLimits.waitReportMs);
      cleanup.push(() => cancelReport());
    });
  } finally {
    for (const undo of cleanup) undo();
  }
}
