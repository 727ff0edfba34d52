/**
 * Sequences into bins of at most so many tokens.
 * Invariants: B1 each index lies in exactly one bin; B2 a bin exceeds the cap only when it holds a single sequence longer than it;
 * B3 splitting never makes a bin longer than the one it came from.
 */
import { at } from "./floats.js";

/** First fit, in the given order: each sequence goes to the first bin it fits in, else opens one. */
export function firstFit(lengths: readonly number[], tokensMax: number): number[][] {
  const bins: number[][] = [];
  const sums: number[] = [];
  lengths.forEach((length, i) => {
    const j = sums.findIndex((sum) => sum + length <= tokensMax);
    const bin = bins[j];
    if (bin === undefined) {
      bins.push([i]);
      sums.push(length);
    } else {
      bin.push(i);
      sums[j] = at(sums, j) + length;
    }
  });
  return bins;
}

/**
 * Splits the bin with the most tokens (of equals, the last) that holds more than one sequence, until there are `count` bins or only
 * singletons. The first half stays in place, the second is appended.
 */
export function splitBins(bins: readonly (readonly number[])[], count: number, lengths: readonly number[]): number[][] {
  const out = bins.map((bin) => [...bin]);
  while (out.length < count) {
    let largest = -1;
    let most = -1;
    out.forEach((bin, j) => {
      const sum = bin.reduce((total, i) => total + at(lengths, i), 0);
      if (bin.length > 1 && sum >= most) [largest, most] = [j, sum];
    });
    const bin = out[largest];
    if (bin === undefined) return out;
    const [left, right] = halves(bin, lengths);
    out[largest] = left;
    out.push(right);
  }
  return out;
}

/** Longest first, each to the half with fewer tokens; of equals, the left. */
function halves(bin: readonly number[], lengths: readonly number[]): [number[], number[]] {
  const left: number[] = [];
  const right: number[] = [];
  let difference = 0;
  for (const i of bin.toSorted((a, b) => at(lengths, b) - at(lengths, a))) {
    const toLeft = difference <= 0;
    (toLeft ? left : right).push(i);
    difference += toLeft ? at(lengths, i) : -at(lengths, i);
  }
  return [left, right];
}
