/**
 * Estimators of KL(π_θ ‖ π_base) from the log-probs of the sampled tokens, with x = ℓ − ℓ_base.
 * Invariants: K1 k2, k3 and low_var_kl are never negative (without importance weights); K2 each is 0 where ℓ = ℓ_base;
 * K3 `grad_T` is the derivative of `kl_T` with respect to ℓ, checked against finite differences.
 * Source: Schulman, "Approximating KL divergence", 2020; importance weights: DeepSeek-V3.2 report, §3.1.
 */
import { unreachable } from "@slime/core";
import { at, type Floats, sameLength } from "./floats.js";

/** `k1` x; `k2` x²/2; `k3` e⁻ˣ − 1 + x; `low_var_kl` k3 clamped to ±10. */
export type KlKind = "k1" | "k2" | "k3" | "low_var_kl";

/** All of them, for flags and tests. */
export const klKinds: readonly KlKind[] = ["k1", "k2", "k3", "low_var_kl"];

/** Bound of `low_var_kl`, in nats. */
export const lowVarKlMax = 10;

/** Values and slopes of one estimate per token. */
export interface KlTokens {
  readonly kl_T: Float64Array;
  /** d kl_t / d ℓ_t. */
  readonly grad_T: Float64Array;
}

/**
 * KL per token and its derivative with respect to the token's own log-prob.
 * With `oldLogProbs_T` the estimate is weighted by the importance ratio e^(ℓ − ℓ_old), through which the gradient also flows;
 * the weight comes before the clamp of `low_var_kl`.
 */
export function klTokens(kind: KlKind, logProbs_T: Floats, baseLogProbs_T: Floats, oldLogProbs_T?: Floats): KlTokens {
  sameLength(logProbs_T.length, { baseLogProbs_T, oldLogProbs_T });
  const kl_T = new Float64Array(logProbs_T.length);
  const grad_T = new Float64Array(logProbs_T.length);
  for (let t = 0; t < kl_T.length; t++) {
    const logProb = at(logProbs_T, t);
    const x = logProb - at(baseLogProbs_T, t);
    let value = estimate(kind, x);
    let slope = estimateSlope(kind, x);
    if (oldLogProbs_T !== undefined) {
      const ratio = Math.exp(logProb - at(oldLogProbs_T, t));
      slope = ratio * (slope + value);
      value *= ratio;
    }
    if (kind === "low_var_kl" && Math.abs(value) > lowVarKlMax) {
      value = Math.sign(value) * lowVarKlMax;
      slope = 0;
    }
    kl_T[t] = value;
    grad_T[t] = slope;
  }
  return { kl_T, grad_T };
}

function estimate(kind: KlKind, x: number): number {
  switch (kind) {
    case "k1":
      return x;
    case "k2":
      return (x * x) / 2;
    case "k3":
    case "low_var_kl":
      return Math.expm1(-x) + x;
    default:
      return unreachable(kind);
  }
}

function estimateSlope(kind: KlKind, x: number): number {
  switch (kind) {
    case "k1":
      return 1;
    case "k2":
      return x;
    case "k3":
    case "low_var_kl":
      return -Math.expm1(-x);
    default:
      return unreachable(kind);
  }
}
