/** What narrows a choice; names as in `Sampling`. */
export interface Narrowing {
  readonly topP: number;
  readonly topK: number | null;
  readonly minP: number;
}

/** Probabilities are sorted into buckets by exponent and three bits of fraction: 8 to each power of two, the largest last. */
const bucketShift = 20;
const buckets = 1 << (31 - bucketShift);
/** Sums of one set of numbers in two orders differ by less than this. */
const massError = 1e-6;

/**
 * Finds the tokens that top_p, top_k and min_p leave, without sorting the vocabulary: one pass counts probabilities by bucket, which tells how
 * far down candidates can lie; only tokens from there up are sorted. C1: the result is that of sorting everything.
 */
export class CandidateFinder {
  readonly #order: Uint32Array;
  readonly #counts = new Uint32Array(buckets);
  readonly #masses = new Float64Array(buckets);

  constructor(vocabSize: number) {
    this.#order = new Uint32Array(vocabSize);
  }

  /**
   * Tokens by falling probability, equal ones by id: at most top_k, those before the mass of top_p is full, none below min_p of the first.
   * @param probs one for each token of the vocabulary, possibly more; not negative. @returns a view, valid until the next call.
   */
  find(probs: Float32Array, { topP, topK, minP }: Narrowing): Uint32Array {
    const vocab = this.#order.length;
    const countMax = Math.min(topK ?? vocab, vocab);
    const count = this.#gather(probs, this.#lowestBucket(probs, topP, countMax));
    const order = this.#order.subarray(0, count).sort((a, b) => (probs[b] ?? 0) - (probs[a] ?? 0) || a - b);
    const floor = minP * (probs[order[0] ?? 0] ?? 0);
    let kept = 0;
    let mass = 0;
    while (kept < Math.min(countMax, count)) {
      const p = probs[order[kept] ?? 0] ?? 0;
      if (kept > 0 && (mass > topP || p < floor)) break;
      mass += p;
      kept++;
    }
    return order.subarray(0, kept);
  }

  /** The first bucket that may hold a candidate. */
  #lowestBucket(probs: Float32Array, topP: number, countMax: number): number {
    const bits = new Uint32Array(probs.buffer, probs.byteOffset, this.#order.length);
    this.#counts.fill(0);
    this.#masses.fill(0);
    for (let token = 0; token < bits.length; token++) {
      const bucket = (bits[token] ?? 0) >>> bucketShift;
      this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
      this.#masses[bucket] = (this.#masses[bucket] ?? 0) + (probs[token] ?? 0);
    }
    let count = 0;
    let mass = 0;
    for (let bucket = buckets - 1; bucket > 0; bucket--) {
      count += this.#counts[bucket] ?? 0;
      mass += this.#masses[bucket] ?? 0;
      if (count >= countMax || mass > topP + massError) return bucket;
    }
    return 0;
  }

  /** Puts the tokens of this bucket and those above at the front of the order; returns how many there are. */
  #gather(probs: Float32Array, lowest: number): number {
    const bits = new Uint32Array(probs.buffer, probs.byteOffset, this.#order.length);
    let count = 0;
    for (let token = 0; token < bits.length; token++) if ((bits[token] ?? 0) >>> bucketShift >= lowest) this.#order[count++] = token;
    return count;
  }
}
