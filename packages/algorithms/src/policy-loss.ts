/**
 * The policy's loss per token and its derivative with respect to the log-probs ℓ of the sampled tokens.
 * With d = ℓ_old − ℓ and ρ = e⁻ᵈ: PPO takes max(−ρA, −clip(ρ)A), capped at −cA for A < 0 by the dual clip; GSPO takes for d the
 * mean of its sequence; CISPO takes −sg(clip(ρ))·A·ℓ.
 * Invariants: P1 `grad_T` is the derivative of `loss` (finite differences); P2 a token of weight 0 adds nothing, except to its
 * sequence's ratio in GSPO; P3 for A > 0 the loss never falls below −(1 + ε_high)·A; P4 with a dual clip, for A < 0 it never
 * exceeds c·|A|.
 * Sources: Schulman et al. 2017, arXiv:1707.06347; dual clip: Ye et al. 2020, arXiv:1912.09729; asymmetric clip: Yu et al. 2025,
 * arXiv:2503.14476; GSPO: Zheng et al. 2025, arXiv:2507.18071; CISPO: MiniMax 2025, arXiv:2506.13585.
 */
import { invariant } from "@slime/core";
import { at, type Floats, offsetsOf, sameLength } from "./floats.js";
import { maskSums } from "./reducers.js";

/** Bounds of the ratio: [1 − epsClip, 1 + epsClipHigh]; `epsClipC` > 1 turns the dual clip on. */
export interface ClipOptions {
  readonly epsClip: number;
  readonly epsClipHigh: number;
  readonly epsClipC?: number | undefined;
}

/** How ratio and loss are formed; the estimators that are not named here train with "ppo". */
export type PolicyLossKind = "ppo" | "gspo" | "cispo";

/** Upstream's `--eps-clip…` and `--opsm-delta`. */
export interface PolicyLossOptions extends ClipOptions {
  readonly kind: PolicyLossKind;
  /** Off-policy sequence mask: tokens with A < 0 of sequences whose mean(ℓ_old − ℓ) exceeds this lose their loss. */
  readonly opsmDelta?: number | undefined;
}

/** Columns over the response tokens of a micro-batch, sequences one after the other. */
export interface PolicyLossInput {
  readonly logProbs_T: Floats;
  /** ℓ_old: the actor before the step, or the engine's. Where the step is the first after generation it may be a copy of ℓ. */
  readonly oldLogProbs_T: Floats;
  readonly advantages_T: Floats;
  readonly mask_T: Floats;
  readonly lengths_D: Floats;
  /** Factors without gradient, like `tisWeights`. */
  readonly factors_T?: Floats | undefined;
}

/** The policy's loss of one micro-batch. */
export interface PolicyLoss {
  /** Σ weight · loss_T. */
  readonly loss: number;
  readonly loss_T: Float64Array;
  /** d loss / d ℓ_t. */
  readonly grad_T: Float64Array;
  /** 1 where the clip decided. */
  readonly clipped_T: Float64Array;
  /** ℓ_old − ℓ as used: of the token, or GSPO's mean. */
  readonly ppoKl_T: Float64Array;
  /** 1 where the off-policy sequence mask took the token. */
  readonly opsmMasked_T: Float64Array;
}

/** @param weights_T the reducer's weights (reducers.ts): what each token's loss counts in the total. */
export function policyLoss(input: PolicyLossInput, options: PolicyLossOptions, weights_T: Floats): PolicyLoss {
  const tokens = input.logProbs_T.length;
  const { oldLogProbs_T, advantages_T, mask_T, factors_T } = input;
  sameLength(tokens, { oldLogProbs_T, advantages_T, mask_T, factors_T, weights_T });
  invariant(options.epsClipC === undefined || options.epsClipC > 1, `epsClipC must be > 1, got ${options.epsClipC}`);
  const sequences = new Sequences(input);
  const ppoKl_T = options.kind === "gspo" ? sequences.spread(sequences.meanKl_D) : sequences.kl_T;
  const loss_T = new Float64Array(tokens);
  const slope_T = new Float64Array(tokens);
  const clipped_T = new Float64Array(tokens);
  const opsmMasked_T = new Float64Array(tokens);
  const seqKl_T = options.opsmDelta === undefined ? null : sequences.spread(sequences.meanKl_D);
  let loss = 0;
  for (let t = 0; t < tokens; t++) {
    const advantage = at(advantages_T, t);
    const ratio = Math.exp(-at(ppoKl_T, t));
    const token =
      options.kind === "cispo" ? cispoToken(ratio, advantage, at(input.logProbs_T, t), options) : ppoToken(ratio, advantage, options);
    const masked = seqKl_T !== null && advantage < 0 && at(seqKl_T, t) > (options.opsmDelta ?? 0);
    const factor = (masked ? 0 : 1) * (factors_T === undefined ? 1 : at(factors_T, t));
    const weight = at(weights_T, t);
    loss_T[t] = factor * token.loss;
    clipped_T[t] = token.clipped ? 1 : 0;
    opsmMasked_T[t] = masked ? 1 : 0;
    if (weight === 0) continue;
    loss += weight * factor * token.loss;
    slope_T[t] = weight * factor * token.slope;
  }
  const grad_T = options.kind === "gspo" ? sequences.backThroughMean(slope_T) : slope_T;
  return { loss, loss_T, grad_T, clipped_T, ppoKl_T, opsmMasked_T };
}

/** Value and slope (d loss / d ℓ, through ρ alone: dρ/dℓ = ρ) of one token. */
interface TokenLoss {
  readonly loss: number;
  readonly slope: number;
  readonly clipped: boolean;
}

function ppoToken(ratio: number, advantage: number, { epsClip, epsClipHigh, epsClipC }: ClipOptions): TokenLoss {
  const plain = -ratio * advantage;
  const bounded = -clip(ratio, 1 - epsClip, 1 + epsClipHigh) * advantage;
  const clipped = bounded > plain;
  const loss = clipped ? bounded : plain;
  const slope = clipped ? 0 : plain;
  if (epsClipC === undefined || advantage >= 0) return { loss, slope, clipped };
  const ceiling = -epsClipC * advantage;
  return loss > ceiling ? { loss: ceiling, slope: 0, clipped } : { loss, slope, clipped };
}

function cispoToken(ratio: number, advantage: number, logProb: number, { epsClip, epsClipHigh }: ClipOptions): TokenLoss {
  const bounded = clip(ratio, 1 - epsClip, 1 + epsClipHigh);
  return { loss: -bounded * advantage * logProb, slope: -bounded * advantage, clipped: bounded !== ratio };
}

function clip(x: number, low: number, high: number): number {
  return Math.min(Math.max(x, low), high);
}

/** ℓ_old − ℓ per token, its masked mean per sequence, and the way back through that mean. */
class Sequences {
  readonly kl_T: Float64Array;
  readonly meanKl_D: Float64Array;
  private readonly offsets: Float64Array;
  private readonly counts_D: Float64Array;
  private readonly mask_T: Floats;

  constructor({ logProbs_T, oldLogProbs_T, mask_T, lengths_D }: PolicyLossInput) {
    this.mask_T = mask_T;
    this.offsets = offsetsOf(lengths_D);
    this.counts_D = maskSums(mask_T, lengths_D);
    this.kl_T = Float64Array.from(mask_T, (_, t) => at(oldLogProbs_T, t) - at(logProbs_T, t));
    this.meanKl_D = Float64Array.from(this.counts_D, (count, d) => {
      let sum = 0;
      for (let t = at(this.offsets, d); t < at(this.offsets, d + 1); t++) sum += at(mask_T, t) * at(this.kl_T, t);
      return sum / Math.max(count, 1);
    });
  }

  spread(values_D: Float64Array): Float64Array {
    const out = new Float64Array(this.mask_T.length);
    for (let d = 0; d < values_D.length; d++) out.fill(at(values_D, d), at(this.offsets, d), at(this.offsets, d + 1));
    return out;
  }

  backThroughMean(slope_T: Float64Array): Float64Array {
    const out = new Float64Array(slope_T.length);
    for (let d = 0; d < this.counts_D.length; d++) {
      const [from, to] = [at(this.offsets, d), at(this.offsets, d + 1)];
      let sum = 0;
      for (let t = from; t < to; t++) sum += at(slope_T, t);
      const share = sum / Math.max(at(this.counts_D, d), 1);
      for (let t = from; t < to; t++) out[t] = at(this.mask_T, t) * share;
    }
    return out;
  }
}
