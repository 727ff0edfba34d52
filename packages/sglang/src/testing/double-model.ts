import { Fnv1a64 } from "../checksum.js";

/** Ids of the double's vocabulary: 62 letters and digits, and two that are special. */
export const doubleVocabulary = 64;
export const doubleEos = 1;
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/** One letter a token; ids 0 and 1 are special and have no text. */
export function decodeDouble(ids: readonly number[]): string {
  return ids.map((id) => (id < 2 ? "" : (letters[id - 2] ?? ""))).join("");
}

export function encodeDouble(text: string): readonly number[] {
  return [...text].map((letter) => letters.indexOf(letter) + 2).filter((id) => id >= 2);
}

/** The weights of a double: a sum for each tensor. Equal sums make equal numbers, whichever way they came. */
export function seedOf(sums: ReadonlyMap<string, string>): number {
  const sum = new Fnv1a64();
  for (const [name, value] of [...sums].sort(([left], [right]) => (left < right ? -1 : 1))) sum.add(Buffer.from(`${name}=${value};`));
  return Number.parseInt(sum.hex.slice(8), 16);
}

/** Log-probs of the token after these, a table decided by the weights and the last two tokens. Shape: [vocabulary]. */
export function logProbs(seed: number, tokens: readonly number[], temperature: number): Float64Array {
  const [last = 0, before = 0] = [tokens.at(-1), tokens.at(-2)];
  const out = new Float64Array(doubleVocabulary);
  let total = 0;
  for (let id = 0; id < doubleVocabulary; id++) {
    out[id] = (4 * mixed(seed, last, before, id)) / (temperature || 1);
    total += Math.exp(out[id] ?? 0);
  }
  const norm = Math.log(total);
  return out.map((value) => value - norm);
}

/** A number from 0 to 1 that any of the four decides. */
function mixed(...values: readonly number[]): number {
  let h = 0x9e3779b9;
  for (const value of values) {
    h = Math.imul(h ^ value, 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
  }
  return (h >>> 0) / 0x100000000;
}
