/**
 * Importance weights that correct for an engine whose log-probs differ from the trainer's at the same weights, or for older
 * weights. w = e^(ℓ_train − ℓ_rollout); ℓ_train is taken without gradient, so the result is a constant factor of the policy loss.
 * Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; IcePop: Ling team 2025.
 */
import { at, type Floats, sameLength } from "./floats.js";

/** Upstream's `--tis-clip` and `--tis-clip-low`. */
export interface TisOptions {
  readonly tisClip: number;
  readonly tisClipLow: number;
  /** "truncate" clamps the weight into [low, high]; "icepop" takes tokens outside of it out of the loss. */
  readonly mode: "truncate" | "icepop";
}

/** Factors per token, and what is reported of them. */
export interface TisWeights {
  /** The factor for the loss. */
  readonly factors_T: Float64Array;
  /** w before truncation: metric `tis`. */
  readonly raw_T: Float64Array;
  /** |w − 1|: metric `tis_abs`. */
  readonly abs_T: Float64Array;
  /** 1 where truncation changed the weight: metric `tis_clipfrac`. */
  readonly clipped_T: Float64Array;
}

/** Both log-probs are of the same sampled tokens: by the trainer before the step, by the engine at sampling. */
export function tisWeights(trainLogProbs_T: Floats, rolloutLogProbs_T: Floats, options: TisOptions): TisWeights {
  sameLength(trainLogProbs_T.length, { rolloutLogProbs_T });
  const raw_T = Float64Array.from(trainLogProbs_T, (logProb, t) => Math.exp(logProb - at(rolloutLogProbs_T, t)));
  const factors_T = raw_T.map((w) => {
    const bounded = Math.min(Math.max(w, options.tisClipLow), options.tisClip);
    return options.mode === "icepop" && bounded !== w ? 0 : bounded;
  });
  return { factors_T, raw_T, abs_T: raw_T.map((w) => Math.abs(w - 1)), clipped_T: raw_T.map((w, t) => (at(factors_T, t) === w ? 0 : 1)) };
}
