/**
 * Python's `random` module, bit for bit, where orders must equal those of a Python run: MT19937 seeded by `init_by_array`,
 * 53-bit `random()`, `shuffle` by rejection over `getrandbits`.
 * Source: Matsumoto and Nishimura 1998; CPython `Modules/_randommodule.c`, `Lib/random.py`.
 */
import { invariant } from "@slime/core";

const words = 624;
const middle = 397;

/** The part of Python's `random.Random` that orders depend on. */
export interface PythonRandom {
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** `k` random bits, 1 ≤ k ≤ 32. */
  readonly getrandbits: (k: number) => number;
  /** Uniform in [0, n), 1 ≤ n < 2³². */
  readonly randbelow: (n: number) => number;
  /** Shuffles in place, like `random.shuffle`. */
  readonly shuffle: <T>(items: { readonly length: number; [index: number]: T }) => void;
}

/** What `random.seed(seed)` leaves behind for an integer. */
export function pythonRandom(seed: number | bigint): PythonRandom {
  const next = twister(seedKey(BigInt(seed)));
  const getrandbits = (k: number) => {
    invariant(k >= 1 && k <= 32, `getrandbits gives 1 to 32 bits, ${k} asked`);
    return next() >>> (32 - k);
  };
  const randbelow = (n: number) => {
    invariant(Number.isInteger(n) && n >= 1 && n < 2 ** 32, `randbelow takes 1 ≤ n < 2^32, got ${n}`);
    const bits = 32 - Math.clz32(n);
    for (;;) {
      const value = getrandbits(bits);
      if (value < n) return value;
    }
  };
  return {
    random: () => ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992,
    getrandbits,
    randbelow,
    shuffle(items) {
      for (let i = items.length - 1; i > 0; i--) {
        const j = randbelow(i + 1);
        [items[i], items[j]] = [items[j] as (typeof items)[number], items[i] as (typeof items)[number]];
      }
    },
  };
}

/** |seed| as 32-bit words, lowest first; at least one. */
function seedKey(seed: bigint): number[] {
  const key: number[] = [];
  for (let rest = seed < 0n ? -seed : seed; rest > 0n; rest >>= 32n) key.push(Number(rest & 0xffffffffn));
  return key.length === 0 ? [0] : key;
}

/** Word `i`, which lies within the array. */
function at(values: ArrayLike<number>, i: number): number {
  return values[i] ?? 0;
}

function twister(key: readonly number[]): () => number {
  const state = new Uint32Array(words);
  const mix = (i: number) => at(state, i - 1) ^ (at(state, i - 1) >>> 30);
  state[0] = 19650218;
  for (let i = 1; i < words; i++) state[i] = Math.imul(1812433253, mix(i)) + i;
  let i = 1;
  const wrap = () => {
    i++;
    if (i < words) return;
    state[0] = at(state, words - 1);
    i = 1;
  };
  for (let n = 0, j = 0; n < Math.max(words, key.length); n++, j = (j + 1) % key.length) {
    state[i] = (at(state, i) ^ Math.imul(mix(i), 1664525)) + at(key, j) + j;
    wrap();
  }
  for (let n = 0; n < words - 1; n++) {
    state[i] = (at(state, i) ^ Math.imul(mix(i), 1566083941)) - i;
    wrap();
  }
  state[0] = 0x80000000;
  let cursor = words;
  return () => {
    if (cursor === words) {
      for (let k = 0; k < words; k++) {
        const y = (at(state, k) & 0x80000000) | (at(state, (k + 1) % words) & 0x7fffffff);
        state[k] = at(state, (k + middle) % words) ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      cursor = 0;
    }
    let y = at(state, cursor++);
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}
