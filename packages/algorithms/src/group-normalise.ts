/**
 * Rewards relative to the other answers to the same prompt.
 * Invariants: A1 each group of the result sums to 0 within 1e-4 of its largest entry; A2 groups are
 * told by their index, never by their size: fan-out, filters and short batches leave a group what it is; A3 the order of rows does
 * not matter; A4 a group of equal rewards, or of one row, yields zeros.
 * Source: Shao et al. 2024, arXiv:2402.03300, §4.1; without the spread: Liu et al. 2025 (Dr. GRPO), arXiv:2503.20783.
 */
import { at, type Floats, sameLength } from "./floats.js";

/** Added to the spread before dividing. */
export const groupSpreadEps = 1e-6;

/** Off is upstream's `--disable-grpo-std-normalization`. */
export interface GroupNormaliseOptions {
  /** Divide by the group's unbiased standard deviation + 1e-6. */
  readonly divideBySpread: boolean;
}

/** `rewards_N[i]` belongs to group `groupIndices_N[i]`; the result is alike, in the rewards' order. */
export function groupNormalise(rewards_N: Floats, groupIndices_N: Floats, options: GroupNormaliseOptions): Float64Array {
  sameLength(rewards_N.length, { groupIndices_N });
  const rows = new Map<number, number[]>();
  for (let i = 0; i < rewards_N.length; i++) {
    const group = rows.get(at(groupIndices_N, i));
    if (group === undefined) rows.set(at(groupIndices_N, i), [i]);
    else group.push(i);
  }
  const out_N = new Float64Array(rewards_N.length);
  for (const members of rows.values()) {
    const mean = members.reduce((sum, i) => sum + at(rewards_N, i), 0) / members.length;
    const squares = members.reduce((sum, i) => sum + (at(rewards_N, i) - mean) ** 2, 0);
    const spread = members.length > 1 ? Math.sqrt(squares / (members.length - 1)) : 0;
    const equal = members.every((i) => at(rewards_N, i) === at(rewards_N, members[0] ?? i));
    const divisor = options.divideBySpread ? spread + groupSpreadEps : 1;
    for (const i of members) out_N[i] = equal ? 0 : (at(rewards_N, i) - mean) / divisor;
  }
  return out_N;
}

/** Upstream's `--advantage-estimator`. */
export type AdvantageEstimator = "grpo" | "gspo" | "cispo" | "reinforce_plus_plus" | "reinforce_plus_plus_baseline" | "ppo";

/** What an estimator does with raw rewards before tokens come in: upstream's `--disable-rewards-normalization` and its kin. */
export function normaliseRewards(
  estimator: AdvantageEstimator,
  rewards_N: Floats,
  groupIndices_N: Floats,
  options: { readonly rewardsNormalization: boolean; readonly grpoStdNormalization: boolean },
): Float64Array {
  switch (estimator) {
    case "grpo":
    case "gspo":
    case "cispo":
    case "reinforce_plus_plus_baseline":
      if (!options.rewardsNormalization) return Float64Array.from(rewards_N);
      return groupNormalise(rewards_N, groupIndices_N, {
        divideBySpread: options.grpoStdNormalization && estimator !== "reinforce_plus_plus_baseline",
      });
    case "reinforce_plus_plus":
    case "ppo":
      return Float64Array.from(rewards_N);
  }
}
