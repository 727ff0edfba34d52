import { type Clock, SlimeError, sleep } from "@slime/core";
import type { ProbeOutcome } from "./http-probe.js";
import { type LogFollower, progressTeller, serverPhase } from "./server-log.js";

/** How often the log is read. */
const readEveryMs = 200;
/** Pause between two probes. */
const probeEveryMs = 250;
/** A starting server's time for one probe: its own limit is 20 s, and its first token may have kernels compiled. */
export const startProbeMsMax = 30_000;

export interface ReadinessParts {
  /** For messages. */
  readonly what: string;
  readonly clock: Clock;
  /** Ends the wait: with its reason. */
  readonly signal: AbortSignal;
  readonly follower: LogFollower;
  /** `/health_generate`. SGLang opens its port before it is ready, and answers 503 until then. */
  readonly probe: (signal: AbortSignal) => Promise<ProbeOutcome>;
  readonly onPhase: (phase: string) => void;
  /** Longest time without any sign that the start goes on. */
  readonly silenceMsMax: number;
}

/**
 * Waits until a server generates. R1 ready means one 200 of `/health_generate`, nothing less. R2 the deadline is on progress, not on
 * duration: a new line in the log or a new answer on the port starts it anew; the traces of our own probes do not.
 * @throws SlimeError `stalled` after `silenceMsMax` without progress; the signal's reason.
 */
export async function awaitReady(parts: ReadinessParts): Promise<void> {
  const { clock, signal, follower, silenceMsMax } = parts;
  const isProgress = progressTeller();
  let phase = "";
  let progressAtMs = clock.nowMs();
  let answer = "";
  const enter = (next: string) => {
    if (next === phase) return;
    phase = next;
    parts.onPhase(next);
  };
  const readLog = async () => {
    for (const line of await follower.read()) {
      const said = serverPhase(line);
      if (said !== null && said !== "ready") enter(said);
      if (isProgress(line)) progressAtMs = clock.nowMs();
    }
  };
  const prober = new AbortController();
  let ready = false;
  const probing = (async () => {
    while (!ready && !prober.signal.aborted) {
      const outcome = await parts.probe(prober.signal);
      const said = outcome.kind === "answered" ? String(outcome.status) : outcome.kind;
      if (said !== answer && said !== "silent") progressAtMs = clock.nowMs();
      answer = said;
      if (said === "200") ready = true;
      else await sleep(clock, probeEveryMs, prober.signal).catch(() => {});
    }
  })();
  try {
    enter("starting");
    while (!ready) {
      await readLog();
      const silentMs = clock.nowMs() - progressAtMs;
      if (silentMs >= silenceMsMax) {
        throw new SlimeError(
          "stalled",
          `${parts.what} has not gone on for ${Math.round(silentMs / 1000)} s while ${phase} (its port: ${answer || "not asked"}): see its log; where compiling takes so long, raise the limit`,
          { what: parts.what, silentMs },
        );
      }
      await sleep(clock, readEveryMs, signal);
    }
  } finally {
    await readLog(); // what it was at when the wait ended
    prober.abort();
    await probing;
  }
  enter("ready");
}
