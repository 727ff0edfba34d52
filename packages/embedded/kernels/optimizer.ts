/**
 * Adam with decoupled weight decay on count floats (a multiple of 4). `gradScale` is the clipping factor; `correction1`, `correction2`
 * are 1/(1 − β₁ᵗ) and 1/(1 − β₂ᵗ), computed by the caller in double precision.
 */
export function adam(
  param: usize, grad: usize, m: usize, v: usize, count: i32, gradScale: f32, lr: f32, beta1: f32, beta2: f32, eps: f32, decay: f32, correction1: f32, correction2: f32,
): void {
  const b1 = f32x4.splat(beta1), b2 = f32x4.splat(beta2), a1 = f32x4.splat(<f32>1 - beta1), a2 = f32x4.splat(<f32>1 - beta2);
  const scale = f32x4.splat(gradScale), e = f32x4.splat(eps), keep = f32x4.splat(<f32>1 - lr * decay);
  const step = f32x4.splat(lr * correction1), c2 = f32x4.splat(correction2);
  for (let at: usize = 0, end = <usize>count << 2; at < end; at += 16) {
    const g = f32x4.mul(v128.load(grad + at), scale);
    const m1 = f32x4.add(f32x4.mul(b1, v128.load(m + at)), f32x4.mul(a1, g));
    const v1 = f32x4.add(f32x4.mul(b2, v128.load(v + at)), f32x4.mul(a2, f32x4.mul(g, g)));
    v128.store(m + at, m1);
    v128.store(v + at, v1);
    const update = f32x4.div(f32x4.mul(step, m1), f32x4.add(f32x4.sqrt(f32x4.mul(v1, c2)), e));
    v128.store(param + at, f32x4.sub(f32x4.mul(v128.load(param + at), keep), update));
  }
}

/** Σ x² of count floats (a multiple of 4), summed in double precision; NaN and infinities come through. */
export function sumSquares(x: usize, count: i32): f64 {
  let low = f64x2.splat(0), high = low;
  for (let at: usize = 0, end = <usize>count << 2; at < end; at += 16) {
    const q = v128.load(x + at);
    const a = f64x2.promote_low_f32x4(q), b = f64x2.promote_low_f32x4(v128.shuffle<f64>(q, q, 1, 1));
    low = f64x2.add(low, f64x2.mul(a, a));
    high = f64x2.add(high, f64x2.mul(b, b));
  }
  const sum = f64x2.add(low, high);
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

/** to += from, count floats (a multiple of 4). */
export function addInto(to: usize, from: usize, count: i32): void {
  for (let at: usize = 0, end = <usize>count << 2; at < end; at += 16) v128.store(to + at, f32x4.add(v128.load(to + at), v128.load(from + at)));
}

export function fillZero(at: usize, count: i32): void {
  memory.fill(at, 0, <usize>count << 2);
}

export function copy(to: usize, from: usize, count: i32): void {
  memory.copy(to, from, <usize>count << 2);
}
