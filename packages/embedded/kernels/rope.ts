/**
 * Rotary positions in place, Hugging Face's half rotation: (a, b) = (x[j], x[j + hd/2]) → (a·cos − b·sin, b·cos + a·sin).
 * x: n rows of `heads` heads; positions: i32 [n]; cos, sin: [positions, hd/2]. `inverse` ≠ 0 rotates back: the backward pass. hd is a multiple of 8.
 */
export function rope(x: usize, ldx: i32, n: i32, heads: i32, hd: i32, positions: usize, cos: usize, sin: usize, inverse: i32): void {
  const half = <usize>hd << 1;
  const sign = f32x4.splat(inverse ? -1.0 : 1.0);
  for (let i = 0; i < n; i++) {
    const table = <usize>load<i32>(positions + (<usize>i << 2)) * half;
    for (let h = 0; h < heads; h++) {
      const row = x + (<usize>(i * ldx + h * hd) << 2);
      for (let at: usize = 0; at < half; at += 16) {
        const c = v128.load(cos + table + at), s = f32x4.mul(v128.load(sin + table + at), sign);
        const a = v128.load(row + at), b = v128.load(row + half + at);
        v128.store(row + at, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
        v128.store(row + half + at, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
      }
    }
  }
}
