import { sum4 } from "./math";

/**
 * RMSNorm of `groups` adjacent vectors of length d in each of n rows (groups = 1: the layer norm; groups = heads: qk-norm).
 * Row i, group g lies at x + 4·(i·ldx + g·d); rstd [n, groups] is kept for the backward pass. d is a multiple of 4.
 */
export function rmsNorm(x: usize, ldx: i32, w: usize, y: usize, ldy: i32, rstd: usize, n: i32, groups: i32, d: i32, eps: f32): void {
  for (let i = 0; i < n; i++) {
    for (let g = 0; g < groups; g++) {
      const from = x + (<usize>(i * ldx + g * d) << 2), to = y + (<usize>(i * ldy + g * d) << 2);
      let sum = f32x4.splat(0);
      for (let at: usize = 0, end = <usize>d << 2; at < end; at += 16) {
        const v = v128.load(from + at);
        sum = f32x4.add(sum, f32x4.mul(v, v));
      }
      const r: f32 = 1.0 / sqrt<f32>(sum4(sum) / <f32>d + eps);
      store<f32>(rstd + (<usize>(i * groups + g) << 2), r);
      const r4 = f32x4.splat(r);
      for (let at: usize = 0, end = <usize>d << 2; at < end; at += 16) {
        v128.store(to + at, f32x4.mul(f32x4.mul(v128.load(from + at), r4), v128.load(w + at)));
      }
    }
  }
}

/** Backward of `rmsNorm`: dw += Σ dy·x·rstd; dx is set (acc = 0) or added to (acc = 1). dy and dx may be one buffer when acc = 0. */
export function rmsNormBackward(
  x: usize, ldx: i32, w: usize, rstd: usize, dy: usize, lddy: i32, dx: usize, lddx: i32, dw: usize, n: i32, groups: i32, d: i32, acc: i32,
): void {
  const end = <usize>d << 2;
  for (let i = 0; i < n; i++) {
    for (let g = 0; g < groups; g++) {
      const xs = x + (<usize>(i * ldx + g * d) << 2), dys = dy + (<usize>(i * lddy + g * d) << 2), dxs = dx + (<usize>(i * lddx + g * d) << 2);
      const r = load<f32>(rstd + (<usize>(i * groups + g) << 2));
      const r4 = f32x4.splat(r);
      let dot = f32x4.splat(0);
      for (let at: usize = 0; at < end; at += 16) {
        const g4 = v128.load(dys + at), xhat = f32x4.mul(v128.load(xs + at), r4);
        v128.store(dw + at, f32x4.add(v128.load(dw + at), f32x4.mul(g4, xhat)));
        dot = f32x4.add(dot, f32x4.mul(f32x4.mul(g4, v128.load(w + at)), xhat));
      }
      const mean = f32x4.splat(sum4(dot) / <f32>d);
      for (let at: usize = 0; at < end; at += 16) {
        const xhat = f32x4.mul(v128.load(xs + at), r4);
        let out = f32x4.mul(r4, f32x4.sub(f32x4.mul(v128.load(dys + at), v128.load(w + at)), f32x4.mul(xhat, mean)));
        if (acc) out = f32x4.add(out, v128.load(dxs + at));
        v128.store(dxs + at, out);
      }
    }
  }
}
