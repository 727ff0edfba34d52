/** Bytes per node. A token id takes about five bytes of JSON, so a node is some twenty tokens. */
export const blockBytes = 128;

/**
 * Hashes of a prompt's prefixes, one per block and one for what is left over, each over all bytes before it: two prompts share the nodes of
 * their common blocks. 52 bits, so that a clash between a million nodes has a chance of one in ten thousand; it would cost a cache miss.
 */
export function prefixHashes(prompt: Uint8Array): readonly number[] {
  const out: number[] = [];
  let low = 0x811c9dc5;
  let high = 0x9747b28c;
  for (let i = 0; i < prompt.length; i++) {
    const byte = prompt[i] ?? 0;
    low = Math.imul(low ^ byte, 0x01000193);
    high = Math.imul(high ^ byte, 0x85ebca6b);
    high ^= high >>> 15;
    if ((i + 1) % blockBytes === 0 || i + 1 === prompt.length) out.push((low >>> 0) + (high & 0xfffff) * 0x1_0000_0000);
  }
  return out;
}

/**
 * Which prefixes an engine has seen lately: a radix tree whose nodes are named by the hash of their whole prefix, least recently used first.
 * X1: at most `nodesMax` nodes. X2: a node's prefix is in it as long as the node is, so a prompt's longest match is found by bisection.
 */
export class PrefixIndex {
  readonly #nodes = new Set<number>();
  readonly #nodesMax: number;

  constructor(nodesMax: number) {
    this.#nodesMax = nodesMax;
  }

  get size(): number {
    return this.#nodes.size;
  }

  /** How many of the prompt's prefixes are known. */
  match(hashes: readonly number[]): number {
    let known = 0;
    let unknown = hashes.length;
    while (known < unknown) {
      const middle = (known + unknown) >>> 1;
      if (this.#nodes.has(hashes[middle] ?? Number.NaN)) known = middle + 1;
      else unknown = middle;
    }
    return known;
  }

  /** Now the most recent of all, the shortest prefix last: so what is dropped first is never a prefix of what stays (X2). */
  add(hashes: readonly number[]): void {
    const from = Math.min(hashes.length, this.#nodesMax);
    for (let i = from - 1; i >= 0; i--) {
      const hash = hashes[i] ?? 0;
      this.#nodes.delete(hash);
      this.#nodes.add(hash);
    }
    for (const oldest of this.#nodes) {
      if (this.#nodes.size <= this.#nodesMax) break;
      this.#nodes.delete(oldest);
    }
  }
}
