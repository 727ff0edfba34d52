import type { Clock, Timer } from "@slime/core";
import type { Platform } from "@slime/platform";
import { nodeLimits } from "./limits.js";

/**
 * Tells a host that hangs from one that computes. A host that is silent on its connection may be in the middle of a long
 * computation that does not yield; it uses processor time, or would if it got some. One that is stopped, or wants none for long, hangs.
 */
export interface SilenceWatch extends Disposable {
  /** The process has no connection from here on. */
  readonly silent: (processId: string, pid: number) => void;
  /** It is connected, or gone: no longer looked at. */
  readonly heard: (processId: string) => void;
}

export interface SilenceWatchOptions {
  readonly platform: Platform;
  readonly clock: Clock;
  readonly onHang: (processId: string, message: string) => void;
}

interface Silent {
  readonly pid: number;
  readonly sinceMs: number;
  cpuMs: number;
  busyMs: number;
}

/** Watches processes without a connection, with one timer. */
export function silenceWatch({ platform, clock, onHang }: SilenceWatchOptions): SilenceWatch {
  const silent = new Map<string, Silent>();
  let timer: Timer | null = null;
  let disposed = false;
  const look = async () => {
    for (const [processId, entry] of [...silent]) {
      const activity = await platform.processes.activity(entry.pid);
      if (silent.get(processId) !== entry || activity === null) continue; // heard of meanwhile, or dead, which others notice
      const nowMs = clock.nowMs();
      // Where processor time is told in whole seconds only, a starved process seems to use none for long; but it wants some.
      if (activity.cpuMs > entry.cpuMs || activity.runnable) {
        entry.cpuMs = activity.cpuMs;
        entry.busyMs = nowMs;
      }
      const seconds = (fromMs: number) => Math.round((nowMs - fromMs) / 1_000);
      const verdict = activity.stopped
        ? `it does not answer and is stopped (SIGSTOP); silent for ${seconds(entry.sinceMs)} s beyond ${nodeLimits.hostSilenceMsMax / 1_000} s`
        : nowMs - entry.busyMs >= nodeLimits.hostIdleMsMax
          ? `it does not answer and has used no processor time for ${seconds(entry.busyMs)} s`
          : null;
      if (verdict === null) continue;
      silent.delete(processId);
      onHang(processId, verdict);
    }
    timer = null;
    schedule();
  };
  const schedule = () => {
    if (timer === null && silent.size > 0 && !disposed) timer = clock.after(nodeLimits.hostLookMs, () => void look());
  };
  return {
    silent(processId, pid) {
      const nowMs = clock.nowMs();
      silent.set(processId, { pid, sinceMs: nowMs, cpuMs: 0, busyMs: nowMs });
      schedule();
    },
    heard: (processId) => void silent.delete(processId),
    [Symbol.dispose]() {
      disposed = true;
      timer?.cancel();
    },
  };
}
