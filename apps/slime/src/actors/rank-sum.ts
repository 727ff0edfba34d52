import { invariant } from "@slime/core";
import { sumInOrder } from "@slime/embedded";

/** Sums that may be open at once; ranks run in step, so there is one, and one of a call that was given up. */
const openMax = 8;

interface OpenSum {
  readonly parts: (Float32Array | undefined)[];
  readonly waiters: ((total: Float32Array) => void)[];
}

/** Adds up the ranks' shares in rank order, so that every rank gets the same bits. */
export class RankSum {
  readonly #ranks: number;
  readonly #open = new Map<string, OpenSum>();

  constructor(ranks: number) {
    this.#ranks = ranks;
  }

  /** Resolves with the total when every rank has come with this key. A rank that comes again replaces its share (it is the same). */
  add(key: string, rank: number, values: Float32Array): Promise<Float32Array> {
    const sum = this.#open.get(key) ?? { parts: Array<Float32Array | undefined>(this.#ranks).fill(undefined), waiters: [] };
    this.#open.set(key, sum);
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= openMax) break;
      this.#open.delete(oldest);
    }
    invariant(rank >= 0 && rank < this.#ranks, `rank ${rank} of ${this.#ranks}`);
    sum.parts[rank] = values;
    return new Promise((resolve) => {
      sum.waiters.push(resolve);
      const parts = sum.parts.filter((part) => part !== undefined);
      if (parts.length < this.#ranks) return;
      this.#open.delete(key);
      const total = sumInOrder(parts);
      for (const wake of sum.waiters) wake(total);
    });
  }
}
