import type { LoopState } from "./loop-state.js";
import type { RunContext } from "./run-context.js";
import { busyMs, overlapMs } from "./spans.js";

/** What a run (this attempt of it) came to. */
export interface RunSummary {
  readonly runId: string;
  readonly attempt: number;
  readonly rollouts: number;
  readonly step: number;
  /** Directory of the last checkpoint. */
  readonly checkpoint: string | null;
  /** Evaluations of this attempt, first to last. */
  readonly evals: readonly { readonly rolloutId: number; readonly values: Readonly<Record<string, number>> }[];
  /** Mean reward of the last rollout trained. */
  readonly reward: number | null;
  readonly generatedTokens: number;
  readonly trainedTokens: number;
  readonly wallMs: number;
  readonly generationMs: number;
  readonly trainingMs: number;
  /** Time in which both went on at once. */
  readonly overlapMs: number;
  readonly lagMax: number;
  readonly failedPrompts: number;
}

/** Sums up this attempt; `checkpoint` is the last one's directory. */
export function summaryOf(context: RunContext, state: LoopState, wallMs: number, checkpoint: string | null): RunSummary {
  const { tally, settings, desk } = context;
  return {
    runId: settings.runId,
    attempt: state.attempt,
    rollouts: state.trained,
    step: tally.step,
    checkpoint,
    evals: tally.evals,
    reward: tally.reward,
    generatedTokens: tally.generatedTokens,
    trainedTokens: tally.trainedTokens,
    wallMs,
    generationMs: busyMs(tally.spans, "generation"),
    trainingMs: busyMs(tally.spans, "training"),
    overlapMs: overlapMs(tally.spans, "generation", "training"),
    lagMax: tally.lagMax,
    failedPrompts: desk.failed,
  };
}
