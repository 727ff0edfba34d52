/**
 * `--normalize-advantages`: advantages of all trained tokens of a step, over all ranks, to mean 0 and variance 1.
 * Invariants: H1 moments of parts add up to the moments of the whole; H2 after whitening with the mean shift the trained tokens have
 * mean 0 and unbiased variance 1 (unless all are equal).
 */
import { SlimeError } from "@slime/core";
import { at, type Floats, sameLength } from "./floats.js";

/** What a rank sends to the others: they add up. */
export interface Moments {
  readonly count: number;
  readonly sum: number;
  readonly sumOfSquares: number;
}

/** Moments of the trained tokens of one part. */
export function maskedMoments(values_T: Floats, mask_T: Floats): Moments {
  sameLength(values_T.length, { mask_T });
  let [count, sum, sumOfSquares] = [0, 0, 0];
  for (let t = 0; t < values_T.length; t++) {
    const weight = at(mask_T, t);
    if (weight === 0) continue;
    const value = at(values_T, t);
    count += weight;
    sum += weight * value;
    sumOfSquares += weight * value * value;
  }
  return { count, sum, sumOfSquares };
}

/** Moments of all parts together (H1). */
export function addMoments(parts: readonly Moments[]): Moments {
  return parts.reduce((a, b) => ({ count: a.count + b.count, sum: a.sum + b.sum, sumOfSquares: a.sumOfSquares + b.sumOfSquares }), {
    count: 0,
    sum: 0,
    sumOfSquares: 0,
  });
}

/**
 * (x − mean) / √(variance + 1e-8), variance with Bessel's correction; masked tokens are moved and scaled like the others.
 * @throws SlimeError `trainer.numeric` when no token of the step is trained.
 */
export function whiten(values_T: Floats, moments: Moments, options: { readonly shiftMean: boolean; readonly step: number }): Float64Array {
  if (moments.count === 0)
    throw new SlimeError(
      "trainer.numeric",
      "no token of this step is trained, so advantages have no mean: look for samples without a loss mask",
      { what: "normalize_advantages", step: options.step },
    );
  const mean = moments.sum / moments.count;
  const bessel = moments.count >= 2 ? moments.count / (moments.count - 1) : 1;
  const variance = Math.max(0, moments.sumOfSquares / moments.count - mean * mean) * bessel;
  const scale = 1 / Math.sqrt(variance + 1e-8);
  return Float64Array.from(values_T, (value) => (value - mean) * scale + (options.shiftMean ? 0 : mean));
}
