/**
 * Which samples train together: optimizer steps of whole rollouts, micro-batches of bounded length, ranks of equal work.
 * Invariants: D1 each kept sample lies in exactly one micro-batch of one rank of one step; D2 samples of one rollout stay in one step;
 * D3 all ranks have equally many micro-batches in a step, a multiple of the virtual-pipeline group; D4 with dynamic batches and
 * without `balanceByFlops` a micro-batch exceeds the cap only when it is one sample longer than it; D5 only trailing rollouts that do
 * not fill a step are dropped, and they are counted.
 */
import { invariant, SlimeError } from "@slime/core";
import { at } from "./floats.js";
import { balancedPartitions } from "./karmarkar-karp.js";
import { firstFit, splitBins } from "./packing.js";

/** How a step's samples become micro-batches. */
export type Packing =
  | { readonly kind: "static"; readonly microBatchSize: number }
  /** `balanceByFlops`: bins of equal estimated work instead of first fit; they may exceed the cap. */
  | { readonly kind: "dynamic"; readonly tokensPerGpuMax: number; readonly balanceByFlops: boolean };

/** How many ranks share the work, and by what rule. */
export interface ScheduleOptions {
  /** Rollouts (distinct rollout ids) per optimizer step. */
  readonly globalBatchSize: number;
  readonly dataParallelSize: number;
  readonly contextParallelSize: number;
  readonly virtualPipelineSize: number;
  /** Only read when `virtualPipelineSize` > 1. */
  readonly microBatchGroupSize: number;
  readonly packing: Packing;
  /** Give ranks equal estimated work instead of every dp-th micro-batch. */
  readonly balanceData: boolean;
  /** Forward FLOPs of one sample of this many tokens; see `forwardFlops`. */
  readonly sampleFlops: (tokens: number) => number;
}

/** One optimizer step. */
export interface ScheduledStep {
  /** Rollouts of this step: the loss's denominator. */
  readonly rollouts: number;
  /** `ranks[r][m]` are the positions of the samples of rank r's micro-batch m. */
  readonly ranks: readonly (readonly (readonly number[])[])[];
}

/** All steps of one rollout. */
export interface DpSchedule {
  readonly steps: readonly ScheduledStep[];
  /** Positions of samples that fill no step. */
  readonly dropped: readonly number[];
}

/**
 * @param samples tokens (prompt and response, ≥ 1) and rollout id of each sample, by position.
 * @throws SlimeError `config.invalid` that names the numbers when no step can be filled or micro-batches cannot be spread evenly.
 */
export function scheduleSteps(
  samples: readonly { readonly tokens: number; readonly rolloutId: number }[],
  options: ScheduleOptions,
): DpSchedule {
  const rollouts = new Map<number, number[]>();
  samples.forEach(({ rolloutId }, position) => {
    const members = rollouts.get(rolloutId);
    if (members === undefined) rollouts.set(rolloutId, [position]);
    else members.push(position);
  });
  const { globalBatchSize } = options;
  const stepCount = Math.floor(rollouts.size / globalBatchSize);
  if (stepCount < 1)
    refuse(
      `num_rollouts (${rollouts.size}) < global_batch_size (${globalBatchSize}): lower --global-batch-size or raise --rollout-batch-size`,
    );
  const members = [...rollouts.values()];
  const steps = Array.from({ length: stepCount }, (_, s): ScheduledStep => {
    const positions = members.slice(s * globalBatchSize, (s + 1) * globalBatchSize).flat();
    const tokens = positions.map((position) => samples[position]?.tokens ?? 0);
    invariant(
      tokens.every((count) => count >= 1),
      "every sample has at least one token",
    );
    const ranks = scheduleStep(tokens, s, options);
    return { rollouts: globalBatchSize, ranks: ranks.map((rank) => rank.map((microBatch) => microBatch.map((i) => at(positions, i)))) };
  });
  return { steps, dropped: members.slice(stepCount * globalBatchSize).flat() };
}

function scheduleStep(tokens: readonly number[], step: number, options: ScheduleOptions): number[][][] {
  const { dataParallelSize: dp, packing } = options;
  if (tokens.length < dp)
    refuse(
      `step ${step}: ${tokens.length} samples < dp_size ${dp}: every rank needs a sample, so raise --global-batch-size or use fewer data-parallel ranks`,
    );
  const group = options.virtualPipelineSize > 1 ? options.microBatchGroupSize : 1;
  const multiple = dp * group;
  let bins = pack(tokens, options);
  const wanted = Math.ceil(bins.length / multiple) * multiple;
  if (bins.length < wanted) {
    if (packing.kind === "static")
      refuse(
        `static micro-batches: ${bins.length} of ${packing.microBatchSize} samples are not a multiple of dp_size * mb_group (${multiple}); step ${step} has ${tokens.length} samples: choose --micro-batch-size so that samples per step divide evenly, or --use-dynamic-batch-size`,
      );
    bins = splitBins(bins, wanted, tokens);
    if (bins.length < wanted)
      refuse(
        `dynamic micro-batches: only ${bins.length} of ${wanted} after every split; step ${step} has ${tokens.length} samples, fewer than dp_size * mb_group (${multiple}) needs: raise --global-batch-size`,
      );
  }
  const work =
    options.balanceData || (packing.kind === "dynamic" && packing.balanceByFlops)
      ? bins.map((bin) => bin.reduce((sum, i) => sum + options.sampleFlops(at(tokens, i)), 0))
      : null;
  const order =
    work === null
      ? Array.from({ length: dp }, (_, r) => bins.map((_, b) => b).filter((b) => b % dp === r))
      : balancedPartitions(work, dp, { equalSize: true });
  return order.map((rank) => rank.map((b) => bins[b] ?? []));
}

function pack(tokens: readonly number[], { packing, contextParallelSize, sampleFlops }: ScheduleOptions): number[][] {
  if (packing.kind === "static")
    return Array.from({ length: Math.ceil(tokens.length / packing.microBatchSize) }, (_, b) =>
      tokens.map((_, i) => i).slice(b * packing.microBatchSize, (b + 1) * packing.microBatchSize),
    );
  const cap = packing.tokensPerGpuMax * contextParallelSize;
  if (!packing.balanceByFlops) return firstFit(tokens, cap);
  const count = Math.ceil(tokens.reduce((sum, n) => sum + n, 0) / cap);
  if (count >= tokens.length) return tokens.map((_, i) => [i]);
  return balancedPartitions(tokens.map(sampleFlops), count, { equalSize: false });
}

function refuse(issue: string): never {
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}

/** The same schedule as upstream's workers take it: per rank one list of sample positions, and micro-batches as ranges into it. */
export function perRankLayout(
  schedule: DpSchedule,
  dataParallelSize: number,
): {
  readonly partitions: readonly (readonly number[])[];
  readonly microBatchIndices: readonly (readonly (readonly number[])[])[];
  readonly numMicrobatches: readonly number[];
  readonly globalBatchSizes: readonly number[];
} {
  const ranks = Array.from({ length: dataParallelSize }, (_, r) => schedule.steps.flatMap((step) => step.ranks[r] ?? []));
  return {
    partitions: ranks.map((rank) => rank.flat()),
    microBatchIndices: ranks.map((rank) => {
      let from = 0;
      return rank.map((microBatch) => microBatch.map(() => from++));
    }),
    numMicrobatches: schedule.steps.map((step) => step.ranks[0]?.length ?? 0),
    globalBatchSizes: schedule.steps.map((step) => step.rollouts),
  };
}
