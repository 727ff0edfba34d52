/**
 * Splits weighted items into k parts of nearly equal sums by the largest differencing method.
 * Invariants: Q1 each item lies in exactly one part; Q2 no part is empty; Q3 with `equalSize` all parts have equally many items;
 * Q4 equal inputs give equal parts, ties included: the order is total, by sums, then counts, then items.
 * Sums are doubles: beyond 2⁵³ they round, which can only change how ties fall.
 * Source: Karmarkar and Karp 1982; https://en.wikipedia.org/wiki/Largest_differencing_method.
 */
import { invariant } from "@slime/core";
import { at } from "./floats.js";

interface Part {
  readonly sum: number;
  /** Item indices in the order they came; weights break no tie that indices do not. */
  readonly items: readonly number[];
}

/** k parts, largest first. */
type Parts = readonly Part[];

/** Indices of the items in each part, ascending; parts in descending order of their sums. */
export function balancedPartitions(weights: readonly number[], k: number, options: { readonly equalSize: boolean }): number[][] {
  invariant(k >= 1 && weights.length >= k, `cannot make ${k} parts of ${weights.length} items`);
  invariant(!options.equalSize || weights.length % k === 0, `${weights.length} items do not make ${k} parts of equal size`);
  const order = weights.map((_, i) => i).sort((a, b) => at(weights, a) - at(weights, b) || a - b);
  const step = options.equalSize ? k : 1;
  const waiting: Parts[] = [];
  for (let from = 0; from < order.length; from += step) {
    const parts: Part[] = order.slice(from, from + step).map((i) => ({ sum: at(weights, i), items: [i] }));
    while (parts.length < k) parts.push({ sum: 0, items: [] });
    push(waiting, parts.sort(descending));
  }
  for (;;) {
    const first = pop(waiting);
    invariant(first !== undefined, "Q1: there is at least one item");
    const second = pop(waiting);
    if (second === undefined) return checked(first, weights.length);
    push(waiting, first.map((part, i) => joined(part, second[k - 1 - i])).sort(descending));
  }
}

function joined(a: Part, b: Part | undefined): Part {
  invariant(b !== undefined, "Q1: both have k parts");
  return { sum: a.sum + b.sum, items: [...a.items, ...b.items] };
}

function descending(a: Part, b: Part): number {
  return b.sum - a.sum || b.items.length - a.items.length || -compareItems(a.items, b.items);
}

function compareItems(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const difference = at(a, i) - at(b, i);
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** The largest spread leaves first; of equal spreads the one with the larger first part. */
function before(a: Parts, b: Parts): boolean {
  const difference = spread(a) - spread(b);
  if (difference !== 0) return difference > 0;
  const [x, y] = [a[0], b[0]];
  return x !== undefined && y !== undefined && descending(x, y) < 0;
}

function spread(parts: Parts): number {
  return (parts[0]?.sum ?? 0) - (parts.at(-1)?.sum ?? 0);
}

function push(heap: Parts[], parts: Parts): void {
  let i = heap.length;
  heap.push(parts);
  while (i > 0) {
    const parent = (i - 1) >> 1;
    const above = heap[parent];
    if (above === undefined || !before(parts, above)) break;
    heap[i] = above;
    i = parent;
  }
  heap[i] = parts;
}

function pop(heap: Parts[]): Parts | undefined {
  const top = heap[0];
  const moved = heap.pop();
  if (moved === undefined || heap.length === 0) return top;
  let i = 0;
  for (;;) {
    const [left, right] = [heap[2 * i + 1], heap[2 * i + 2]];
    if (left === undefined) break;
    const child = right !== undefined && before(right, left) ? 2 * i + 2 : 2 * i + 1;
    const below = heap[child];
    if (below === undefined || !before(below, moved)) break;
    heap[i] = below;
    i = child;
  }
  heap[i] = moved;
  return top;
}

function checked(parts: Parts, count: number): number[][] {
  const result = parts.map((part) => [...part.items].sort((a, b) => a - b));
  invariant(
    result.every((part) => part.length > 0),
    "Q2: a part is empty; are there weights of 0?",
  );
  invariant(result.reduce((sum, part) => sum + part.length, 0) === count, "Q1: each item in one part");
  return result;
}
