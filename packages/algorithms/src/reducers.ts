/**
 * From numbers per token to one number per step. A reducer is a weight per token: total = Σ_t weight_t · x_t, so the same weights
 * are the derivative of the total, and every loss here takes them as its upstream gradient.
 * Invariants: R1 weights of a rollout (all samples of one rollout id) sum to `scale` in the mode "rollout" when any token counts;
 * R2 a masked token weighs 0; R3 splitting a batch into micro-batches leaves every weight as it was.
 */
import { at, type Floats, offsetsOf, sameLength } from "./floats.js";

/** Mask sums over all samples of the same rollout: `[i] = Σ_{j: id_j = id_i} maskSum_j`. */
export function rolloutMaskSums(rolloutIds_D: readonly number[], maskSums_D: Floats): Float64Array {
  sameLength(rolloutIds_D.length, { maskSums_D });
  const sums = new Map<number, number>();
  for (const [d, id] of rolloutIds_D.entries()) sums.set(id, (sums.get(id) ?? 0) + at(maskSums_D, d));
  return Float64Array.from(rolloutIds_D, (id) => sums.get(id) ?? 0);
}

/** Σ of the mask over each sequence. */
export function maskSums(mask_T: Floats, lengths_D: Floats): Float64Array {
  const offsets = offsetsOf(lengths_D);
  sameLength(at(offsets, lengths_D.length), { mask_T });
  const sums = new Float64Array(lengths_D.length);
  for (let d = 0; d < sums.length; d++) {
    let sum = 0;
    for (let t = at(offsets, d); t < at(offsets, d + 1); t++) sum += at(mask_T, t);
    sums[d] = sum;
  }
  return sums;
}

/** The tokens of one micro-batch, and what each counts in its step. */
export interface ReducerInput {
  /** 1 where a token is trained, else 0; sequences one after the other. */
  readonly mask_T: Floats;
  /** Response tokens of each sequence. */
  readonly lengths_D: Floats;
  /** `rolloutMaskSums` of the whole rollout, not of this micro-batch; left out, each sequence is its own rollout. */
  readonly rolloutMaskSums_D?: Floats | undefined;
}

/**
 * Default: one mean per rollout. weight = scale · m / max(D, 1), D the mask sum of the token's rollout.
 * @param scale 1 / (rollouts in the optimizer step) gives the mean over rollouts.
 */
export function rolloutMeanWeights(input: ReducerInput, scale = 1): Float64Array {
  const offsets = offsetsOf(input.lengths_D);
  const denominators = input.rolloutMaskSums_D ?? maskSums(input.mask_T, input.lengths_D);
  sameLength(at(offsets, input.lengths_D.length), { mask_T: input.mask_T });
  sameLength(input.lengths_D.length, { denominators });
  const weights_T = new Float64Array(input.mask_T.length);
  for (let d = 0; d < input.lengths_D.length; d++) {
    const weight = scale / Math.max(at(denominators, d), 1);
    for (let t = at(offsets, d); t < at(offsets, d + 1); t++) weights_T[t] = at(input.mask_T, t) * weight;
  }
  return weights_T;
}

/**
 * `--calculate-per-token-loss`: every trained token of the step counts alike. weight = scale · m.
 * @param scale 1 / `tokenNormaliser(step)` gives the mean over tokens.
 */
export function tokenMeanWeights(mask_T: Floats, scale = 1): Float64Array {
  return Float64Array.from(mask_T, (m) => m * scale);
}

/** Σ over the step's sequences of max(mask sum, 1). */
export function tokenNormaliser(maskSums_D: Floats): number {
  let sum = 0;
  for (let d = 0; d < maskSums_D.length; d++) sum += Math.max(at(maskSums_D, d), 1);
  return sum;
}

/** Σ weight · x. */
export function reduceTokens(weights_T: Floats, x_T: Floats): number {
  sameLength(weights_T.length, { x_T });
  let sum = 0;
  for (let t = 0; t < weights_T.length; t++) {
    const weight = at(weights_T, t);
    if (weight !== 0) sum += weight * at(x_T, t);
  }
  return sum;
}
