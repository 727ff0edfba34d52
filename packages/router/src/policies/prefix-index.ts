/** Bytes per node. A token id takes about five bytes of JSON, so a node is some twenty tokens. */
export const blockBytes = 128;

/**
 * Hashes of a prompt's prefixes, one per block and one for what is left over, each over all bytes before it: two prompts share the nodes of
 * their common blocks. 52 bits, so that a clash between a million nodes has a chance of one in ten thousand; it would cost a cache miss.
 * Words are mixed as MurmurHash3 does it.
 */
export function prefixHashes(prompt: Uint8Array): readonly number[] {
  const out: number[] = [];
  const words = new DataView(prompt.buffer, prompt.byteOffset, prompt.byteLength);
  let low = 0x811c9dc5;
  let high = 0x9747b28c;
  const take = (word: number) => {
    let mixed = Math.imul(word, 0xcc9e2d51);
    mixed = Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
    low ^= mixed;
    low = (Math.imul((low << 13) | (low >>> 19), 5) + 0xe6546b64) | 0;
    high ^= mixed;
    high = (Math.imul((high << 17) | (high >>> 15), 9) + 0x561ccd1b) | 0;
  };
  const node = () => (low >>> 0) + (high & 0xfffff) * 0x1_0000_0000;
  const wholeEnd = prompt.length - (prompt.length % blockBytes);
  for (let at = 0; at < wholeEnd; at += 4) {
    take(words.getUint32(at, true));
    if ((at + 4) % blockBytes === 0) out.push(node());
  }
  if (wholeEnd === prompt.length) return out;
  for (let at = wholeEnd; at < prompt.length; at++) take((prompt[at] ?? 0) + 256);
  out.push(node());
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
