/**
 * From one reward per row to one advantage per response token.
 * Invariants: A5 rows do not touch each other; A6 a row whose mask is empty (removed samples, all tool tokens) gets a zero advantage
 * under reinforce_plus_plus instead of an error; A7 with γ = λ = 1 and no KL, GAE's return at each token is the reward.
 * Sources: GAE: Schulman et al. 2015, arXiv:1506.02438; REINFORCE++: Hu et al. 2025, arXiv:2501.03262.
 */
import { invariant, unreachable } from "@slime/core";
import { at, type Floats, offsetsOf, sameLength } from "./floats.js";
import type { AdvantageEstimator } from "./group-normalise.js";

/** What advantages are made of: one reward per row, columns over the rows' response tokens. */
export interface AdvantageInput {
  /** After `normaliseRewards`. */
  readonly rewards_D: Floats;
  readonly lengths_D: Floats;
  readonly mask_T: Floats;
  /** KL(ℓ, ℓ_ref) per token; left out: none. */
  readonly kl_T?: Floats | undefined;
  /** The critic's values; only "ppo" reads them. */
  readonly values_T?: Floats | undefined;
}

/** Which estimator, and its constants under upstream's names. */
export interface AdvantageOptions {
  readonly estimator: AdvantageEstimator;
  /** β: how much of the KL each token's reward loses. */
  readonly klCoef: number;
  readonly gamma: number;
  readonly lambd: number;
}

/** One advantage and one return (the critic's target) per response token. */
export interface Advantages {
  readonly advantages_T: Float64Array;
  readonly returns_T: Float64Array;
}

/** The estimator's advantage for every response token, without whitening. @throws InvariantError when "ppo" comes without values. */
export function tokenAdvantages(input: AdvantageInput, options: AdvantageOptions): Advantages {
  const { rewards_D, lengths_D, mask_T, kl_T, values_T } = input;
  const offsets = offsetsOf(lengths_D);
  const tokens = at(offsets, lengths_D.length);
  sameLength(tokens, { mask_T, kl_T, values_T });
  sameLength(lengths_D.length, { rewards_D });
  const advantages_T = new Float64Array(tokens);
  const returns_T = new Float64Array(tokens);
  for (let d = 0; d < lengths_D.length; d++) {
    const [from, to] = [at(offsets, d), at(offsets, d + 1)];
    const penalty = Float64Array.from({ length: to - from }, (_, t) =>
      kl_T === undefined || options.klCoef === 0 ? 0 : options.klCoef * at(kl_T, from + t),
    );
    const row: Row = {
      reward: at(rewards_D, d),
      penalty_T: penalty,
      mask_T: slice(mask_T, from, to),
      values_T: values_T === undefined ? undefined : slice(values_T, from, to),
    };
    const { advantages_T: a, returns_T: r } = rowAdvantages(row, options);
    advantages_T.set(a, from);
    returns_T.set(r, from);
  }
  return { advantages_T, returns_T };
}

interface Row {
  readonly reward: number;
  readonly penalty_T: Float64Array;
  readonly mask_T: Float64Array;
  readonly values_T: Float64Array | undefined;
}

function rowAdvantages(row: Row, options: AdvantageOptions): Advantages {
  switch (options.estimator) {
    case "grpo":
    case "gspo":
    case "cispo":
      return both(row.penalty_T.map(() => row.reward));
    case "reinforce_plus_plus_baseline":
      return both(row.penalty_T.map((penalty) => row.reward - penalty));
    case "reinforce_plus_plus": {
      const last = row.mask_T.findLastIndex((m) => m !== 0);
      if (last < 0) return both(new Float64Array(row.mask_T.length));
      return both(
        discountedReturns(
          row.penalty_T.map((penalty, t) => (t === last ? row.reward : 0) - penalty * at(row.mask_T, t)),
          options.gamma,
        ),
      );
    }
    case "ppo": {
      invariant(row.values_T !== undefined, "the estimator ppo needs the critic's values");
      const rewards_T = row.penalty_T.map((penalty, t) => (t === row.penalty_T.length - 1 ? row.reward : 0) - penalty);
      return generalisedAdvantages(rewards_T, row.values_T, options.gamma, options.lambd);
    }
    default:
      return unreachable(options.estimator);
  }
}

function both(values_T: Float64Array): Advantages {
  return { advantages_T: values_T, returns_T: values_T };
}

function slice(values: Floats, from: number, to: number): Float64Array {
  return Float64Array.from({ length: to - from }, (_, t) => at(values, from + t));
}

/** GAE over one sequence: δ_t = r_t + γV_{t+1} − V_t with V after the end 0; A_t = δ_t + γλA_{t+1}; returns A + V. */
export function generalisedAdvantages(rewards_T: Floats, values_T: Floats, gamma: number, lambd: number): Advantages {
  sameLength(rewards_T.length, { values_T });
  const advantages_T = new Float64Array(rewards_T.length);
  let nextAdvantage = 0;
  let nextValue = 0;
  for (let t = rewards_T.length - 1; t >= 0; t--) {
    const value = at(values_T, t);
    nextAdvantage = at(rewards_T, t) + gamma * nextValue - value + gamma * lambd * nextAdvantage;
    advantages_T[t] = nextAdvantage;
    nextValue = value;
  }
  return { advantages_T, returns_T: advantages_T.map((a, t) => a + at(values_T, t)) };
}

/** G_t = r_t + γG_{t+1} over one sequence. */
export function discountedReturns(rewards_T: Floats, gamma: number): Float64Array {
  const returns_T = new Float64Array(rewards_T.length);
  let next = 0;
  for (let t = rewards_T.length - 1; t >= 0; t--) {
    next = at(rewards_T, t) + gamma * next;
    returns_T[t] = next;
  }
  return returns_T;
}

/** On-policy distillation: A − coef · (ℓ_student − ℓ_teacher), the reverse KL at the sampled tokens. */
export function distillAdvantages(
  advantages_T: Floats,
  studentLogProbs_T: Floats,
  teacherLogProbs_T: Floats,
  opdKlCoef: number,
): Float64Array {
  sameLength(advantages_T.length, { studentLogProbs_T, teacherLogProbs_T });
  return Float64Array.from(advantages_T, (a, t) => a - opdKlCoef * (at(studentLogProbs_T, t) - at(teacherLogProbs_T, t)));
}
