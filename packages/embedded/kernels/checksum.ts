/** FNV-1a, 64 bits, over `bytes` bytes, going on from `hash`. */
export function fnv1a64(at: usize, bytes: u32, hash: u64): u64 {
  for (let i: usize = 0; i < <usize>bytes; i++) hash = (hash ^ <u64>load<u8>(at + i)) * 0x100000001b3;
  return hash;
}
