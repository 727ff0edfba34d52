/**
 * From logits to log-probs and entropy, and back: the slow reference for kernels.
 * Invariants: G1 probabilities of a row sum to 1; G2 0 ≤ entropy ≤ ln(vocabulary); G3 the gradient is the derivative (finite
 * differences); G4 each row of the gradient sums to 0.
 */
import { invariant } from "@slime/core";
import { at, type Floats, sameLength } from "./floats.js";

/** Logits of some tokens and the tokens that were sampled from them. */
export interface LogitsInput {
  /** Row-major, one row of `vocabulary` logits per token. */
  readonly logits: Floats;
  readonly vocabulary: number;
  readonly targets_T: Floats;
  /** Logits are divided by this before the softmax. */
  readonly temperature: number;
  /**
   * The recorded nucleus of each token (top-p replay), or null for a row without one. Log-probs are taken among these ids, the
   * target always included; entropy is taken over the whole vocabulary all the same.
   */
  readonly keep_T?: readonly (ReadonlySet<number> | null)[] | undefined;
}

/** Per token: log-probability of the target, entropy of the distribution, in nats. */
export interface TokenLogProbs {
  readonly logProbs_T: Float64Array;
  readonly entropy_T: Float64Array;
}

/** Log-probs and entropies; computed in float64 with the row's maximum taken out. */
export function tokenLogProbs(input: LogitsInput): TokenLogProbs {
  const rows = checked(input);
  const logProbs_T = new Float64Array(rows);
  const entropy_T = new Float64Array(rows);
  for (let t = 0; t < rows; t++) {
    const { full, kept } = rowLogSoftmax(input, t);
    logProbs_T[t] = at(kept, at(input.targets_T, t));
    entropy_T[t] = entropyOf(full);
  }
  return { logProbs_T, entropy_T };
}

/** d(Σ gradLogProbs·ℓ + gradEntropy·H) / d logits: dℓ/dz_j = ([j is the target] − p_j)/T, dH/dz_j = −p_j(ln p_j + H)/T. */
export function logitsGradient(input: LogitsInput, gradLogProbs_T: Floats, gradEntropy_T: Floats): Float64Array {
  const rows = checked(input);
  sameLength(rows, { gradLogProbs_T, gradEntropy_T });
  const out = new Float64Array(input.logits.length);
  for (let t = 0; t < rows; t++) {
    const { full, kept } = rowLogSoftmax(input, t);
    const entropy = entropyOf(full);
    for (let j = 0; j < input.vocabulary; j++) {
      const byLogProb = (j === at(input.targets_T, t) ? 1 : 0) - Math.exp(at(kept, j));
      const logP = at(full, j);
      const byEntropy = logP === -Infinity ? 0 : -Math.exp(logP) * (logP + entropy);
      out[t * input.vocabulary + j] = (at(gradLogProbs_T, t) * byLogProb + at(gradEntropy_T, t) * byEntropy) / input.temperature;
    }
  }
  return out;
}

function checked(input: LogitsInput): number {
  const rows = input.targets_T.length;
  invariant(input.logits.length === rows * input.vocabulary, `${input.logits.length} logits are not ${rows} rows of ${input.vocabulary}`);
  invariant(input.temperature > 0, `temperature must be > 0, got ${input.temperature}`);
  invariant(input.keep_T === undefined || input.keep_T.length === rows, "one nucleus, or null, per token");
  return rows;
}

function rowLogSoftmax(input: LogitsInput, t: number): { readonly full: Float64Array; readonly kept: Float64Array } {
  const row = Float64Array.from({ length: input.vocabulary }, (_, j) => at(input.logits, t * input.vocabulary + j) / input.temperature);
  const full = logSoftmax(row);
  const keep = input.keep_T?.[t] ?? null;
  if (keep === null) return { full, kept: full };
  const target = at(input.targets_T, t);
  return { full, kept: logSoftmax(row.map((z, j) => (keep.has(j) || j === target ? z : -Infinity))) };
}

function logSoftmax(row: Float64Array): Float64Array {
  let max = -Infinity;
  for (const z of row) max = Math.max(max, z);
  let sum = 0;
  for (const z of row) sum += Math.exp(z - max);
  const logSum = max + Math.log(sum);
  return row.map((z) => z - logSum);
}

function entropyOf(logP: Float64Array): number {
  let entropy = 0;
  for (const lp of logP) if (lp !== -Infinity) entropy -= Math.exp(lp) * lp;
  return entropy;
}
