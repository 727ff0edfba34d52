import { exp4 } from "./math";

/** SwiGLU: out[i, j] = silu(gate)·up, with gateUp [n, 2f] holding gate in its first f columns. f is a multiple of 4. */
export function swiglu(gateUp: usize, out: usize, n: i32, f: i32): void {
  const width = <usize>f << 2;
  const one = f32x4.splat(1);
  for (let i = 0; i < n; i++) {
    const gate = gateUp + <usize>i * (width << 1), to = out + <usize>i * width;
    for (let at: usize = 0; at < width; at += 16) {
      const g = v128.load(gate + at);
      const s = f32x4.div(one, f32x4.add(one, exp4(f32x4.neg(g))));
      v128.store(to + at, f32x4.mul(f32x4.mul(g, s), v128.load(gate + width + at)));
    }
  }
}

/** Backward of `swiglu`: overwrites gateUp with its gradient. */
export function swigluBackward(gateUp: usize, dOut: usize, n: i32, f: i32): void {
  const width = <usize>f << 2;
  const one = f32x4.splat(1);
  for (let i = 0; i < n; i++) {
    const gate = gateUp + <usize>i * (width << 1), from = dOut + <usize>i * width;
    for (let at: usize = 0; at < width; at += 16) {
      const g = v128.load(gate + at), u = v128.load(gate + width + at), d = v128.load(from + at);
      const s = f32x4.div(one, f32x4.add(one, exp4(f32x4.neg(g))));
      const silu = f32x4.mul(g, s);
      v128.store(gate + width + at, f32x4.mul(d, silu));
      const slope = f32x4.add(s, f32x4.mul(silu, f32x4.sub(one, s)));
      v128.store(gate + at, f32x4.mul(f32x4.mul(d, u), slope));
    }
  }
}
