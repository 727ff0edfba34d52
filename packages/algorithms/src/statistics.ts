/** Numbers for reports over groups of answers. */
import { at, type Floats } from "./floats.js";

/**
 * The chance that at least one of `k` answers drawn from `n`, of which `correct` are right, is right: 1 − C(n − c, k)/C(n, k).
 * Source: Chen et al. 2021, arXiv:2107.03374, §2.1.
 */
export function passAtK(n: number, correct: number, k: number): number {
  if (n - correct < k) return 1;
  let miss = 1;
  for (let i = n - correct + 1; i <= n; i++) miss *= 1 - k / i;
  return 1 - miss;
}

/** Mean of `passAtK` over groups, for k = 1, 2, 4, … up to `groupSize`; a reward of 1 counts as right. Groups follow one another. */
export function passRates(rewards_PG: Floats, groupSize: number): Readonly<Record<number, number>> {
  const groups = Math.floor(rewards_PG.length / groupSize);
  const correct_P = Array.from({ length: groups }, (_, p) => {
    let correct = 0;
    for (let g = 0; g < groupSize; g++) if (at(rewards_PG, p * groupSize + g) === 1) correct++;
    return correct;
  });
  const rates: Record<number, number> = {};
  for (let k = 1; k <= groupSize; k *= 2)
    rates[k] = correct_P.reduce((sum, correct) => sum + passAtK(groupSize, correct, k), 0) / Math.max(groups, 1);
  return rates;
}

/** What reports say of a set of numbers. */
export interface Summary {
  readonly mean: number;
  readonly median: number;
  readonly max: number;
  readonly min: number;
}

/** Null of nothing. */
export function summarise(values: Floats): Summary | null {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? at(sorted, half) : (at(sorted, half - 1) + at(sorted, half)) / 2;
  return { mean: sorted.reduce((a, b) => a + b, 0) / sorted.length, median, max: at(sorted, sorted.length - 1), min: at(sorted, 0) };
}
