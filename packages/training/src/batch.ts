/**
 * From finished groups to what each rank trains: reward normalisation per group, whole optimizer steps, data-parallel partition,
 * micro-batches, mask sums. Numbers only; rows stay addresses into parts.
 * A1 every row of a kept group lies in exactly one step, rank and micro-batch; A2 a group trains whole or not at all, so that an
 * instance is consumed or dropped, never halved; A3 mask sums are over all rows of a rollout id, whatever rank they lie on.
 */
import {
  type AdvantageEstimator,
  normaliseRewards,
  type Packing,
  rolloutMaskSums,
  scheduleSteps,
  tokenNormaliser,
} from "@slime/algorithms";
import type { RowAddress, SampleSummary } from "@slime/backend";
import { invariant } from "@slime/core";
import type { RankRows, StepRows } from "./ports.js";

export interface BatchOptions {
  readonly estimator: AdvantageEstimator;
  readonly rewardsNormalization: boolean;
  readonly grpoStdNormalization: boolean;
  /** Rollout ids per optimizer step. */
  readonly globalBatchSize: number;
  readonly dataParallelSize: number;
  readonly packing: Packing;
  readonly balanceData: boolean;
}

/** A finished group that may train. */
export interface TrainGroup {
  readonly instanceId: string;
  readonly groupIndex: number;
  readonly samples: readonly SampleSummary[];
  readonly rows: readonly RowAddress[];
  /** Too old for `--max-staleness` under the policy `mask`: keeps its place in normalisation and batch, trains nothing. */
  readonly masked: boolean;
}

export interface Batch {
  readonly steps: readonly StepRows[];
  readonly trained: readonly TrainGroup[];
  /** Groups left over because they do not fill an optimizer step. */
  readonly remainder: readonly TrainGroup[];
}

/** @throws `config.invalid` with the numbers when the rows cannot be spread over ranks and micro-batches. */
export function assembleBatch(groups: readonly TrainGroup[], options: BatchOptions): Batch {
  const kept = wholeSteps(groups, options.globalBatchSize);
  const trained = groups.slice(0, kept);
  const remainder = groups.slice(kept);
  if (kept === 0) return { steps: [], trained, remainder };

  const rows = trained.flatMap((group) => group.samples.map((sample, i) => ({ group, sample, address: get(group.rows, i) })));
  const rewards_N = rows.map(({ sample }) => {
    invariant(
      sample.reward !== null && Number.isFinite(sample.reward),
      `sample ${sample.index} of ${sample.instanceId} trains without a reward`,
    );
    return sample.reward;
  });
  const advantages_N = normaliseRewards(
    options.estimator,
    rewards_N,
    rows.map(({ group }) => group.groupIndex),
    options,
  );
  const effective_N = rows.map(({ group, sample }) => (group.masked ? 0 : sample.effectiveLength));
  const sums_N = rolloutMaskSums(
    rows.map(({ sample }) => sample.rolloutId),
    effective_N,
  );
  const schedule = scheduleSteps(
    rows.map(({ sample }) => ({ tokens: sample.promptLength + sample.responseLength, rolloutId: sample.rolloutId })),
    { ...options, contextParallelSize: 1, virtualPipelineSize: 1, microBatchGroupSize: 1, sampleFlops: (tokens) => tokens },
  );
  invariant(schedule.dropped.length === 0, "A2: the schedule left rows of a kept group over");

  const steps = schedule.steps.map((step): StepRows => {
    const all = step.ranks.flat(2);
    const ranks = step.ranks.map((microBatches, dataParallelRank): RankRows => {
      const positions = microBatches.flat();
      let at = 0;
      return {
        dataParallelRank,
        rows: positions.map((position) => get(rows, position).address),
        advantages_N: Float32Array.from(positions, (position) => get(advantages_N, position)),
        rolloutMaskSums_N: Float32Array.from(positions, (position) => get(sums_N, position)),
        masked_N: Uint8Array.from(positions, (position) => (get(rows, position).group.masked ? 1 : 0)),
        microBatches: microBatches.map((microBatch) => Int32Array.from(microBatch, () => at++)),
      };
    });
    return { ranks, globalBatchSize: step.rollouts, globalTokens: tokenNormaliser(all.map((position) => get(effective_N, position))) };
  });
  return { steps, trained, remainder };
}

/** The longest prefix of groups whose rollout ids fill whole steps. */
function wholeSteps(groups: readonly TrainGroup[], globalBatchSize: number): number {
  const ids = new Set<number>();
  let fits = 0;
  for (const [at, group] of groups.entries()) {
    for (const sample of group.samples) ids.add(sample.rolloutId);
    if (ids.size % globalBatchSize === 0) fits = at + 1;
  }
  return fits;
}

function get<T>(values: ArrayLike<T>, at: number): T {
  const value = values[at];
  invariant(value !== undefined, `no element ${at} of ${values.length}`);
  return value;
}
