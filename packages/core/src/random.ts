import { getRandomValues } from "node:crypto";

/** Chance as an argument, so that whoever needs it can be replayed. */
export interface Random {
  /** `n` uniform bytes. */
  readonly bytes: (n: number) => Uint8Array;
  /** Uniform in [0, 1), 53 bits. */
  readonly unit: () => number;
}

/** The operating system's randomness, for processes; tests and reducers take `seededRandom`. */
export const systemRandom: Random = fromBytes((n) => getRandomValues(new Uint8Array(n)));

/** SplitMix64: equal seeds give equal sequences on every machine. Not for secrets. */
export function seededRandom(seed: number | bigint): Random {
  let state = BigInt.asUintN(64, BigInt(seed));
  const next = (): bigint => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let z = state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
  return fromBytes((n) => {
    const out = new Uint8Array(n);
    for (let at = 0; at < n; at += 8) {
      let word = next();
      for (let i = at; i < Math.min(n, at + 8); i++) {
        out[i] = Number(word & 0xffn);
        word >>= 8n;
      }
    }
    return out;
  });
}

function fromBytes(bytes: (n: number) => Uint8Array): Random {
  return {
    bytes,
    unit() {
      const view = new DataView(bytes(8).buffer);
      const high = view.getUint32(0, true) >>> 5;
      const low = view.getUint32(4, true) >>> 6;
      return (high * 0x4000000 + low) / 0x20000000000000;
    },
  };
}
