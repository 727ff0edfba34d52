import type { Arena } from "../kernels.js";
import { CandidateFinder } from "./candidates.js";

/** How a request's next token is chosen, defaults filled in. JSON names in generate-request.ts. */
export interface Sampling {
  /** 0: the most probable token. */
  readonly temperature: number;
  readonly topP: number;
  /** Largest number of candidates; null: all. */
  readonly topK: number | null;
  readonly minP: number;
  readonly seed: number;
}

/** Floats of scratch that a `Sampler` needs. */
export function samplerFloats(stride: number): number {
  return stride + 8;
}

/**
 * Chooses tokens. S1: a choice is a function of (logits, sampling, index of the output token) alone: chance comes from a hash of
 * the request's seed and that index, so batch mates, pauses and retractions change nothing.
 * S2: `logProb` is the log-softmax of logits / temperature over the whole vocabulary, as SGLang reports it: top_p, top_k and min_p
 * narrow the choice and leave it alone; at temperature 0 it is that of temperature 1.
 */
export class Sampler {
  readonly #arena: Arena;
  readonly #vocab: number;
  readonly #stride: number;
  readonly #probsAt: number;
  readonly #probs: Float32Array;
  readonly #target: Int32Array;
  readonly #targetAt: number;
  readonly #result: Float32Array;
  readonly #resultAt: number;
  readonly #candidates: CandidateFinder;

  /** @param at byte address of `samplerFloats(stride)` floats for its own use; the arena must not grow from here on. */
  constructor(arena: Arena, vocabSize: number, stride: number, at: number) {
    this.#arena = arena;
    this.#vocab = vocabSize;
    this.#stride = stride;
    this.#probsAt = at;
    this.#targetAt = at + stride * 4;
    this.#resultAt = this.#targetAt + 16;
    this.#probs = arena.f32(this.#probsAt, stride);
    this.#target = arena.i32(this.#targetAt, 1);
    this.#result = arena.f32(this.#resultAt, 4);
    this.#candidates = new CandidateFinder(vocabSize);
  }

  /** Log-probability of `token` under softmax(logits / temperature); NaN when the logits are not finite. */
  logProb(logits: number, token: number, temperature: number): number {
    this.#target[0] = token;
    const r = this.#resultAt;
    this.#arena.kernels.logProbs(
      logits,
      this.#stride,
      this.#vocab,
      1 / (temperature === 0 ? 1 : temperature),
      this.#targetAt,
      1,
      r,
      r + 4,
      r + 8,
    );
    return this.#result[0] ?? NaN;
  }

  /** The token at `index` of the output, or null when the logits are not finite. `banned` tokens are never chosen. */
  pick(logits: number, sampling: Sampling, index: number, banned: readonly number[]): number | null {
    if (sampling.temperature === 0) return this.#mostProbable(logits, banned);
    this.#arena.kernels.softmaxRows(logits, this.#stride, this.#vocab, 1 / sampling.temperature, 1, this.#probsAt);
    const probs = this.#probs;
    for (const token of banned) probs[token] = 0;
    const narrow = sampling.topP < 1 || sampling.minP > 0 || (sampling.topK !== null && sampling.topK < this.#vocab);
    const order = narrow ? this.#candidates.find(probs, sampling) : null;
    const count = order?.length ?? this.#vocab;
    let total = 0;
    for (let i = 0; i < count; i++) total += probs[order?.[i] ?? i] ?? 0;
    if (!(total > 0 && total < Infinity)) return null;
    const target = uniform(sampling.seed, index) * total;
    let sum = 0;
    let last: number | null = null;
    for (let i = 0; i < count; i++) {
      const token = order?.[i] ?? i;
      const p = probs[token] ?? 0;
      if (p === 0) continue;
      sum += p;
      last = token;
      if (sum > target) return token;
    }
    return last;
  }

  #mostProbable(logits: number, banned: readonly number[]): number | null {
    const row = this.#arena.f32(logits, this.#vocab);
    let best: number | null = null;
    let top = -Infinity;
    for (let token = 0; token < this.#vocab; token++) {
      const value = row[token] ?? NaN;
      if (Number.isNaN(value)) return null;
      if (value > top && !banned.includes(token)) {
        top = value;
        best = token;
      }
    }
    return best;
  }
}

/** Uniform in [0, 1), 53 bits, from a seed (any safe integer) and a counter. Not for secrets. */
export function uniform(seed: number, index: number): number {
  const low = seed | 0;
  const high = Math.floor(seed / 0x1_0000_0000) | 0;
  const a = mix(low ^ mix(high ^ mix(Math.imul(index + 1, 0x9e3779b1))));
  const b = mix(Math.imul(a, 0x27d4eb2f) ^ mix(low + Math.imul(index + 1, 0x85ebca77)));
  return ((a >>> 5) * 0x4000000 + (b >>> 6)) / 0x20000000000000;
}

/** A seed of its own for choice `i` of one request, and for requests that gave none; `i` = 0 leaves the seed as it is. */
export function childSeed(seed: number, i: number): number {
  return i === 0 ? seed : Math.floor(uniform(seed, -i - 1) * Number.MAX_SAFE_INTEGER);
}

/** MurmurHash3's finaliser: every input bit moves every output bit. */
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
