import {
  klTokens,
  maskedMoments,
  type ObjectiveOptions,
  objective,
  reduceTokens,
  rolloutMeanWeights,
  tisWeights,
  tokenAdvantages,
  tokenMeanWeights,
  whiten,
} from "@slime/algorithms";
import type { Collective, LossConfig, RankBatch, SampleColumns, TokenValues, TrainStepRequest } from "@slime/backend";
import { invariant } from "@slime/core";
import type { PositionGradients, PositionValues } from "./head-pass.js";

/** Sums that micro-batches and ranks add up, under upstream's names without `train/`. The order is that of the slots behind the gradients. */
export const summedMetrics = [
  "loss",
  "pg_loss",
  "pg_clipfrac",
  "ppo_kl",
  "entropy_loss",
  "kl_loss",
  "train_rollout_logprob_abs_diff",
  "tis",
  "tis_clipfrac",
  "tis_abs",
  "ois",
] as const;
export type SummedMetric = (typeof summedMetrics)[number];

/** The loss of one step's micro-batches: arithmetic from `algorithms`, columns cut by sample. */
export class StepLoss {
  readonly #request: TrainStepRequest;
  readonly #config: LossConfig;
  /** Advantage per response token of the rank's batch, in column order. */
  readonly #advantages_T: Float64Array;
  readonly sums = new Map<SummedMetric, number>();

  private constructor(request: TrainStepRequest, config: LossConfig, advantages_T: Float64Array) {
    this.#request = request;
    this.#config = config;
    this.#advantages_T = advantages_T;
  }

  /** Advantages of all tokens come first: whitening needs the moments of every rank. */
  static async begin(
    request: TrainStepRequest,
    config: LossConfig,
    collective: Collective,
    options: { readonly key: string; readonly step: number; readonly signal: AbortSignal },
  ): Promise<StepLoss> {
    const { batch, oldLogProbs, refLogProbs } = request;
    const { columns } = batch;
    let kl_T: Float64Array | undefined;
    if (config.klCoef !== 0) {
      invariant(oldLogProbs !== null && refLogProbs !== null, "a KL penalty in the reward needs old and reference log-probs");
      kl_T = klTokens(config.klLossType, oldLogProbs.values_T, refLogProbs.values_T).kl_T;
    }
    const { advantages_T } = tokenAdvantages(
      { rewards_D: batch.advantages_N, lengths_D: columns.responseLengths_N, mask_T: columns.lossMask_T, kl_T },
      { estimator: config.advantageEstimator, klCoef: config.klCoef, gamma: config.gamma, lambd: 1 },
    );
    if (!config.normalizeAdvantages) return new StepLoss(request, config, advantages_T);
    const { count, sum, sumOfSquares } = maskedMoments(advantages_T, columns.lossMask_T);
    const moments = Float32Array.of(count, sum, sumOfSquares);
    await collective.allReduceSum(options.key, moments, options.signal);
    const total = { count: moments[0] ?? 0, sum: moments[1] ?? 0, sumOfSquares: moments[2] ?? 0 };
    return new StepLoss(request, config, whiten(advantages_T, total, { shiftMean: true, step: options.step }));
  }

  /** Values of a micro-batch's response tokens (packed in the order of `rows`) → the derivative of the step's loss. Adds to `sums`. */
  gradients(rows: Int32Array, values: PositionValues): PositionGradients {
    const { batch, oldLogProbs, refLogProbs, globalBatchSize, globalTokens } = this.#request;
    const config = this.#config;
    const { columns } = batch;
    const cut = (column: ArrayLike<number>): Float64Array => cutRows(columns, rows, column);
    const mask_T = cut(columns.lossMask_T);
    const lengths_D = Float64Array.from(rows, (row) => columns.responseLengths_N[row] ?? 0);
    const weights_T = config.calculatePerTokenLoss
      ? tokenMeanWeights(mask_T, 1 / Math.max(globalTokens, 1))
      : rolloutMeanWeights(
          { mask_T, lengths_D, rolloutMaskSums_D: Float64Array.from(rows, (row) => batch.rolloutMaskSums_N[row] ?? 0) },
          1 / globalBatchSize,
        );
    const rollout_T = cut(columns.rolloutLogProbs_T);
    const trainOld_T = oldLogProbs === null ? Float64Array.from(values.logProbs_T) : cut(oldLogProbs.values_T);
    const tis = config.useTis
      ? tisWeights(trainOld_T, rollout_T, { tisClip: config.tisClip, tisClipLow: config.tisClipLow, mode: "truncate" })
      : null;
    const result = objective(
      {
        logProbs_T: values.logProbs_T,
        oldLogProbs_T: config.useRolloutLogprobs ? rollout_T : trainOld_T,
        advantages_T: cut(this.#advantages_T),
        mask_T,
        lengths_D,
        factors_T: tis?.factors_T,
        entropy_T: values.entropy_T,
        refLogProbs_T: refLogProbs === null ? undefined : cut(refLogProbs.values_T),
      },
      objectiveOptions(config),
      weights_T,
    );
    for (const [name, value] of Object.entries(result.metrics)) this.#add(name as SummedMetric, value);
    this.#add(
      "train_rollout_logprob_abs_diff",
      reduceTokens(
        weights_T,
        trainOld_T.map((logProb, t) => Math.abs(logProb - (rollout_T[t] ?? 0))),
      ),
    );
    if (tis !== null) {
      this.#add("tis", reduceTokens(weights_T, tis.raw_T));
      this.#add("tis_clipfrac", reduceTokens(weights_T, tis.clipped_T));
      this.#add("tis_abs", reduceTokens(weights_T, tis.abs_T));
      const old_T = config.useRolloutLogprobs ? rollout_T : trainOld_T;
      this.#add(
        "ois",
        reduceTokens(
          weights_T,
          old_T.map((old, t) => Math.exp((values.logProbs_T[t] ?? 0) - old)),
        ),
      );
    }
    return { dLogProbs_T: result.gradLogProbs_T, dEntropy_T: result.gradEntropy_T };
  }

  #add(name: SummedMetric, value: number): void {
    this.sums.set(name, (this.sums.get(name) ?? 0) + value);
  }
}

function objectiveOptions(config: LossConfig): ObjectiveOptions {
  const estimator = config.advantageEstimator;
  return {
    kind: estimator === "gspo" || estimator === "cispo" ? estimator : "ppo",
    epsClip: config.epsClip,
    epsClipHigh: config.epsClipHigh,
    epsClipC: config.epsClipC ?? undefined,
    entropyCoef: config.entropyCoef,
    klLoss: config.useKlLoss ? { coef: config.klLossCoef, kind: config.klLossType, unbiased: config.useUnbiasedKl } : null,
  };
}

/** The response tokens of the given rows, one after the other. */
function cutRows(columns: SampleColumns, rows: Int32Array, column: ArrayLike<number>): Float64Array {
  let count = 0;
  for (const row of rows) count += columns.responseLengths_N[row] ?? 0;
  const out = new Float64Array(count);
  let to = 0;
  for (const row of rows) {
    const from = columns.responseOffsets_N[row] ?? 0;
    for (let t = 0; t < (columns.responseLengths_N[row] ?? 0); t++) out[to++] = column[from + t] ?? Number.NaN;
  }
  return out;
}

/** Puts a micro-batch's values where the columns want them; the inverse of cutting. */
export function spreadRows(columns: SampleColumns, rows: Int32Array, values: Float32Array, out_T: Float32Array): void {
  let from = 0;
  for (const row of rows) {
    const length = columns.responseLengths_N[row] ?? 0;
    out_T.set(values.subarray(from, from + length), columns.responseOffsets_N[row] ?? 0);
    from += length;
  }
}

/** An all-zero result of the right shape. */
export function emptyTokenValues(batch: RankBatch): TokenValues {
  return { values_T: new Float32Array(batch.columns.lossMask_T.length) };
}
