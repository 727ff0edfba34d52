import type { Arena } from "./kernels.js";

const offsetBasis = 0xcbf29ce484222325n;

/** FNV-1a 64 of `bytes` bytes at an address, as 16 hex digits: what a weight export is verified by. */
export function checksumHex(arena: Arena, at: number, bytes: number): string {
  return hex(arena.kernels.fnv1a64(at, bytes, offsetBasis));
}

/** The same of values outside of the arena, copied through `count` floats of room at `at`. */
export function checksumHexOf(arena: Arena, values: Float32Array, at: number, count: number): string {
  let hash = offsetBasis;
  for (let from = 0; from < values.length; from += count) {
    const part = values.subarray(from, from + count);
    arena.f32(at, part.length).set(part);
    hash = arena.kernels.fnv1a64(at, part.length * 4, hash);
  }
  return hex(hash);
}

function hex(hash: bigint): string {
  return BigInt.asUintN(64, hash).toString(16).padStart(16, "0");
}
