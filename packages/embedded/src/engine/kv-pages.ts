import { invariant } from "@slime/core";

/** Rows (one token's keys and values) of a page. Small, so that short requests waste little; a table makes the order of pages irrelevant. */
export const pageRows = 16;

/**
 * Which pages of the KV cache are free.
 * V1: a page belongs to one request or is free. V2: what was taken comes back once.
 */
export class KvPages {
  readonly total: number;
  readonly #free: number[] = [];
  readonly #taken: Uint8Array;

  constructor(pages: number) {
    this.total = pages;
    this.#taken = new Uint8Array(pages);
    for (let page = pages - 1; page >= 0; page--) this.#free.push(page);
  }

  static pagesFor(tokens: number): number {
    return Math.ceil(tokens / pageRows);
  }

  get free(): number {
    return this.#free.length;
  }

  /** `count` pages, or null when fewer are free. */
  take(count: number): readonly number[] | null {
    if (count > this.#free.length) return null;
    const pages = this.#free.splice(this.#free.length - count, count).reverse();
    for (const page of pages) {
      invariant(this.#taken[page] === 0, `V1: page ${page} is free`);
      this.#taken[page] = 1;
    }
    return pages;
  }

  give(pages: readonly number[]): void {
    for (const page of pages) {
      invariant(this.#taken[page] === 1, `V2: page ${page} was taken`);
      this.#taken[page] = 0;
      this.#free.push(page);
    }
  }
}
