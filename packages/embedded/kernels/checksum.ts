/** FNV-1a, 64 bits, over `bytes` bytes. */
export function fnv1a64(at: usize, bytes: i32): u64 {
  let hash: u64 = 0xcbf29ce484222325;
  for (let i: usize = 0; i < <usize>bytes; i++) hash = (hash ^ <u64>load<u8>(at + i)) * 0x100000001b3;
  return hash;
}
