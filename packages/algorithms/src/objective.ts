/**
 * All terms of a step's loss together: reduce(L) − c_ent·reduce(H) + c_kl·reduce(KL(ℓ, ℓ_ref)), with the derivatives that a backward
 * pass starts from. Invariant O1: they are the derivatives of `loss` with respect to ℓ and H (finite differences).
 */

import { at, type Floats, sameLength } from "./floats.js";
import { type KlKind, klTokens } from "./kl.js";
import { type PolicyLossInput, type PolicyLossOptions, policyLoss } from "./policy-loss.js";
import { reduceTokens } from "./reducers.js";

/** Columns of the policy loss, and those of the other terms. */
export interface ObjectiveInput extends PolicyLossInput {
  /** Entropy of each token's distribution, before any top-p mask. */
  readonly entropy_T: Floats;
  /** Needed when `klLoss` is set. */
  readonly refLogProbs_T?: Floats | undefined;
}

/** The coefficients of the terms; `klLoss` null leaves the reference out. */
export interface ObjectiveOptions extends PolicyLossOptions {
  readonly entropyCoef: number;
  readonly klLoss: { readonly coef: number; readonly kind: KlKind; readonly unbiased: boolean } | null;
}

/** The loss, its derivatives and what is reported of it. */
export interface Objective {
  readonly loss: number;
  /** d loss / d ℓ_t. */
  readonly gradLogProbs_T: Float64Array;
  /** d loss / d H_t. */
  readonly gradEntropy_T: Float64Array;
  /** Upstream's names without `train/`; each already reduced with the weights, so that micro-batches and ranks add up. */
  readonly metrics: Readonly<Record<"loss" | "pg_loss" | "pg_clipfrac" | "ppo_kl" | "entropy_loss", number>> & {
    readonly kl_loss?: number;
  };
}

/** All terms of one micro-batch. @param weights_T the reducer's weights; micro-batches and ranks add up. */
export function objective(input: ObjectiveInput, options: ObjectiveOptions, weights_T: Floats): Objective {
  const { entropy_T, refLogProbs_T } = input;
  sameLength(input.logProbs_T.length, { entropy_T, refLogProbs_T });
  const policy = policyLoss(input, options, weights_T);
  const entropyLoss = reduceTokens(weights_T, entropy_T);
  const gradLogProbs_T = policy.grad_T;
  let loss = policy.loss - options.entropyCoef * entropyLoss;
  let klLoss: number | undefined;
  if (options.klLoss !== null && refLogProbs_T !== undefined) {
    const { coef, kind, unbiased } = options.klLoss;
    const kl = klTokens(kind, input.logProbs_T, refLogProbs_T, unbiased ? input.oldLogProbs_T : undefined);
    klLoss = reduceTokens(weights_T, kl.kl_T);
    if (coef !== 0) {
      loss += coef * klLoss;
      for (let t = 0; t < gradLogProbs_T.length; t++) {
        const weight = at(weights_T, t);
        if (weight !== 0) gradLogProbs_T[t] = at(gradLogProbs_T, t) + coef * weight * at(kl.grad_T, t);
      }
    }
  }
  return {
    loss,
    gradLogProbs_T,
    gradEntropy_T: Float64Array.from(weights_T, (weight) => (options.entropyCoef === 0 ? 0 : -options.entropyCoef * weight)),
    metrics: {
      loss,
      pg_loss: policy.loss,
      pg_clipfrac: reduceTokens(weights_T, policy.clipped_T),
      ppo_kl: reduceTokens(weights_T, policy.ppoKl_T),
      entropy_loss: entropyLoss,
      ...(klLoss === undefined ? {} : { kl_loss: klLoss }),
    },
  };
}
