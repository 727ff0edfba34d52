import type { Op } from "@slime/backend";
import type { Random } from "@slime/core";
import { backoffDelayMs, defaultBackoff, SlimeError, sleep } from "@slime/core";
import type { FinishedRollout } from "./generation.js";
import type { RunPorts } from "./ports.js";
import type { PromptDesk } from "./prompt-desk.js";
import type { Span } from "./run-records.js";
import type { RunSettings } from "./run-settings.js";
import { isLostAnswer } from "./trainer-failures.js";
import type { WeightPush } from "./weight-push.js";

/** What the lanes of one driver share. Everything durable is behind the ports; this is what a kill may take. */
export interface RunContext {
  readonly ports: RunPorts;
  readonly settings: RunSettings;
  readonly random: Random;
  readonly desk: PromptDesk;
  readonly push: WeightPush;
  /** Finished rollouts that wait for the trainer, by id. */
  readonly rollouts: Map<number, FinishedRollout>;
  readonly deadlines: PhaseDeadlines;
  readonly tally: RunTally;
  /** Something moved: the watchdog starts over. */
  readonly progressed: () => void;
  /** The progress line, with what goes on now. */
  readonly show: (now: string) => void;
}

/** Sums for the summary and the progress line. */
export interface RunTally {
  readonly spans: Span[];
  readonly evals: { readonly rolloutId: number; readonly values: Readonly<Record<string, number>> }[];
  generatedTokens: number;
  trainedTokens: number;
  step: number;
  lagMax: number;
  reward: number | null;
  loss: number | null;
  laneIdleSinceMs: number;
}

/** One life of the run between two rollbacks. Aborting it voids everything begun in it. */
export interface Era {
  readonly number: number;
  readonly signal: AbortSignal;
  readonly opId: (what: string) => string;
}

/** Deadlines of the trainer's phases: long until five were seen, then five times the longest, but 120 s at least. */
export class PhaseDeadlines {
  readonly #seen = new Map<string, { count: number; longestMs: number }>();

  timeoutMs(phase: string): number {
    const seen = this.#seen.get(phase);
    if (seen === undefined || seen.count < 5) return phaseFirstMsMax;
    return Math.max(phaseMsMin, 5 * seen.longestMs);
  }

  saw(phase: string, ms: number): void {
    const seen = this.#seen.get(phase) ?? { count: 0, longestMs: 0 };
    this.#seen.set(phase, { count: seen.count + 1, longestMs: Math.max(seen.longestMs, ms) });
  }
}

export const phaseFirstMsMax = 1_800_000;
export const phaseMsMin = 120_000;
/** A lost answer is asked for again so often, under the same operation id. */
export const sameOpTriesMax = 3;

/** One collective call of the trainer: deadline by experience, and a lost answer asked for again. */
export async function trainerOp<T>(context: RunContext, era: Era, phase: string, opId: string, call: (op: Op) => Promise<T>): Promise<T> {
  const { clock } = context.ports;
  for (let tries = 1; ; tries++) {
    const from = clock.nowMs();
    try {
      const result = await call({ opId, timeoutMs: context.deadlines.timeoutMs(phase), signal: era.signal });
      era.signal.throwIfAborted();
      context.deadlines.saw(phase, clock.nowMs() - from);
      return result;
    } catch (error) {
      era.signal.throwIfAborted();
      if (!isLostAnswer(error) || tries >= sameOpTriesMax) throw error;
      const delayMs = backoffDelayMs(defaultBackoff, tries + 1, context.random);
      await sleep(clock, delayMs ?? defaultBackoff.delayMsMax, era.signal);
    }
  }
}

/** Runs `work` as a span of its lane. */
export async function spanned<T>(context: RunContext, lane: Span["lane"], rolloutId: number, work: () => Promise<T>): Promise<T> {
  const startMs = context.ports.clock.nowMs();
  const result = await work();
  const span = { lane, rolloutId, startMs, endMs: context.ports.clock.nowMs() };
  context.tally.spans.push(span);
  context.ports.spans.write(span);
  return result;
}

/** `no space left` of any layer as the one error that says so. */
export function diskFull(error: unknown, path: string): unknown {
  if (error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT")) {
    return new SlimeError(
      "disk.full",
      `no space left for ${path}: free some on its file system, then give the same command again; the run resumes`,
      { path, needed: null },
      { cause: error },
    );
  }
  return error;
}
