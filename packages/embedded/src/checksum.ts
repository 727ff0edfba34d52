import type { Arena } from "./kernels.js";

/** FNV-1a 64 of `bytes` bytes at an address, as 16 hex digits: what a weight export is verified by. */
export function checksumHex(arena: Arena, at: number, bytes: number): string {
  return BigInt.asUintN(64, arena.kernels.fnv1a64(at, bytes)).toString(16).padStart(16, "0");
}
