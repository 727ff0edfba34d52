// Causal attention with grouped queries. Training and decoding share `attendOne`, so that equal inputs give equal bits
// whether a token is computed within a packed sequence or alone against a cache.

import { exp4, exp4OrZero, max4, sum4 } from "./math";

/** Four dot products of q with the rows at k0…k3, one per lane. */
// @ts-ignore: decorator
@inline
function dot4(q: usize, k0: usize, k1: usize, k2: usize, k3: usize, width: usize): v128 {
  let a = f32x4.splat(0), b = a, c = a, d = a;
  for (let at: usize = 0; at < width; at += 16) {
    const x = v128.load(q + at);
    a = f32x4.add(a, f32x4.mul(x, v128.load(k0 + at)));
    b = f32x4.add(b, f32x4.mul(x, v128.load(k1 + at)));
    c = f32x4.add(c, f32x4.mul(x, v128.load(k2 + at)));
    d = f32x4.add(d, f32x4.mul(x, v128.load(k3 + at)));
  }
  const ab0 = v128.shuffle<f32>(a, b, 0, 4, 1, 5), ab1 = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
  const cd0 = v128.shuffle<f32>(c, d, 0, 4, 1, 5), cd1 = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  const l0 = v128.shuffle<f32>(ab0, cd0, 0, 1, 4, 5), l1 = v128.shuffle<f32>(ab0, cd0, 2, 3, 6, 7);
  const l2 = v128.shuffle<f32>(ab1, cd1, 0, 1, 4, 5), l3 = v128.shuffle<f32>(ab1, cd1, 2, 3, 6, 7);
  return f32x4.add(f32x4.add(l0, l1), f32x4.add(l2, l3));
}

/** Address of key j: through the table of row numbers when there is one, else contiguous. */
// @ts-ignore: decorator
@inline
function rowAt(base: usize, table: usize, j: i32, stride: usize): usize {
  return base + <usize>(table ? load<i32>(table + (<usize>j << 2)) : j) * stride;
}

/**
 * One query head against n keys: out = softmax(scale·q·kᵀ)·v; returns log Σ exp of the scaled scores.
 * scratch holds n rounded up to 4 floats. Lanes past n are −∞ and weigh nothing.
 * Inlined where it is called, so that the contiguous case carries no table.
 */
// @ts-ignore: decorator
@inline
function attendOne(q: usize, keys: usize, values: usize, table: usize, n: i32, stride: usize, hd: i32, scale: f32, out: usize, scratch: usize): f32 {
  const width = <usize>hd << 2, last = n - 1;
  let top = f32x4.splat(-Infinity);
  const s4 = f32x4.splat(scale);
  for (let j = 0; j < n; j += 4) {
    const j1 = min(j + 1, last), j2 = min(j + 2, last), j3 = min(j + 3, last);
    let s = f32x4.mul(s4, dot4(q, rowAt(keys, table, j, stride), rowAt(keys, table, j1, stride), rowAt(keys, table, j2, stride), rowAt(keys, table, j3, stride), width));
    if (j + 4 > n) s = v128.bitselect(s, f32x4.splat(-Infinity), i32x4.lt_s(i32x4.add(i32x4.splat(j), i32x4(0, 1, 2, 3)), i32x4.splat(n)));
    top = f32x4.pmax(top, s);
    v128.store(scratch + (<usize>j << 2), s);
  }
  const peak = max4(top), p4 = f32x4.splat(peak);
  let total4 = f32x4.splat(0);
  for (let j = 0; j < n; j += 4) {
    const at = scratch + (<usize>j << 2);
    const e = exp4OrZero(f32x4.sub(v128.load(at), p4));
    total4 = f32x4.add(total4, e);
    v128.store(at, e);
  }
  const total = sum4(total4), inverse = f32x4.splat(<f32>1.0 / total);
  let at: usize = 0;
  for (; at + 64 <= width; at += 64) {
    let a = f32x4.splat(0), b = a, c = a, d = a;
    for (let j = 0; j < n; j++) {
      const p = v128.load32_splat(scratch + (<usize>j << 2)), v = rowAt(values, table, j, stride) + at;
      a = f32x4.add(a, f32x4.mul(p, v128.load(v)));
      b = f32x4.add(b, f32x4.mul(p, v128.load(v, 16)));
      c = f32x4.add(c, f32x4.mul(p, v128.load(v, 32)));
      d = f32x4.add(d, f32x4.mul(p, v128.load(v, 48)));
    }
    v128.store(out + at, f32x4.mul(a, inverse));
    v128.store(out + at, f32x4.mul(b, inverse), 16);
    v128.store(out + at, f32x4.mul(c, inverse), 32);
    v128.store(out + at, f32x4.mul(d, inverse), 48);
  }
  for (; at < width; at += 16) {
    let a = f32x4.splat(0);
    for (let j = 0; j < n; j++) {
      a = f32x4.add(a, f32x4.mul(v128.load32_splat(scratch + (<usize>j << 2)), v128.load(rowAt(values, table, j, stride) + at)));
    }
    v128.store(out + at, f32x4.mul(a, inverse));
  }
  return peak + <f32>Math.log(<f64>total);
}

/**
 * Packed training attention. qkv [n, ld] holds q (heads·hd), k and v (kvHeads·hd each) side by side; cu: i32 [sequences + 1] row bounds;
 * out [n, heads·hd]; lse [n, heads] is kept for the backward pass; scratch: longest sequence rounded up to 4 floats.
 */
export function attention(qkv: usize, ld: i32, cu: usize, sequences: i32, heads: i32, kvHeads: i32, hd: i32, scale: f32, out: usize, lse: usize, scratch: usize): void {
  const stride = <usize>ld << 2, ldo = <usize>(heads * hd) << 2, share = heads / kvHeads;
  const kOffset = ldo, vOffset = ldo + (<usize>(kvHeads * hd) << 2);
  for (let s = 0; s < sequences; s++) {
    const begin = load<i32>(cu + (<usize>s << 2)), end = load<i32>(cu + (<usize>s << 2), 4);
    const base = qkv + <usize>begin * stride;
    for (let h = 0; h < heads; h++) {
      const head = <usize>(h * hd) << 2, kvHead = <usize>(h / share * hd) << 2;
      for (let i = begin; i < end; i++) {
        const l = attendOne(qkv + <usize>i * stride + head, base + kOffset + kvHead, base + vOffset + kvHead, 0, i - begin + 1, stride, hd, scale, out + <usize>i * ldo + head, scratch);
        store<f32>(lse + (<usize>(i * heads + h) << 2), l);
      }
    }
  }
}

/**
 * Backward of `attention`: fills dQkv (which must be zero) from dOut. Probabilities are recomputed from lse.
 * scratch: two times the longest sequence rounded up to 4 floats.
 */
export function attentionBackward(
  qkv: usize, ld: i32, cu: usize, sequences: i32, heads: i32, kvHeads: i32, hd: i32, scale: f32,
  out: usize, lse: usize, dOut: usize, dQkv: usize, scratch: usize,
): void {
  const stride = <usize>ld << 2, ldo = <usize>(heads * hd) << 2, share = heads / kvHeads;
  const kOffset = ldo, vOffset = ldo + (<usize>(kvHeads * hd) << 2);
  for (let s = 0; s < sequences; s++) {
    const begin = load<i32>(cu + (<usize>s << 2)), end = load<i32>(cu + (<usize>s << 2), 4);
    for (let h = 0; h < heads; h++) {
      const head = <usize>(h * hd) << 2, kvHead = <usize>(h / share * hd) << 2;
      const keys = <usize>begin * stride + kOffset + kvHead, values = <usize>begin * stride + vOffset + kvHead;
      for (let i = begin; i < end; i++) {
        const q = <usize>i * stride + head, o = <usize>i * ldo + head;
        attendBackward(
          qkv + q, qkv + keys, qkv + values, i - begin + 1, stride, hd, scale,
          out + o, load<f32>(lse + (<usize>(i * heads + h) << 2)), dOut + o, dQkv + q, dQkv + keys, dQkv + values, scratch,
        );
      }
    }
  }
}

function attendBackward(
  q: usize, keys: usize, values: usize, n: i32, stride: usize, hd: i32, scale: f32,
  out: usize, lse: f32, dOut: usize, dq: usize, dKeys: usize, dValues: usize, scratch: usize,
): void {
  const width = <usize>hd << 2, last = n - 1;
  const slopes = scratch + (<usize>((n + 3) & ~3) << 2);
  let dot = f32x4.splat(0);
  for (let at: usize = 0; at < width; at += 16) dot = f32x4.add(dot, f32x4.mul(v128.load(out + at), v128.load(dOut + at)));
  const mean = f32x4.splat(sum4(dot)), s4 = f32x4.splat(scale), l4 = f32x4.splat(lse);
  for (let j = 0; j < n; j += 4) {
    const r0 = <usize>j * stride, r1 = <usize>min(j + 1, last) * stride, r2 = <usize>min(j + 2, last) * stride, r3 = <usize>min(j + 3, last) * stride;
    const score = f32x4.mul(s4, dot4(q, keys + r0, keys + r1, keys + r2, keys + r3, width));
    const p = exp4(f32x4.sub(score, l4));
    const dp = dot4(dOut, values + r0, values + r1, values + r2, values + r3, width);
    v128.store(scratch + (<usize>j << 2), p);
    v128.store(slopes + (<usize>j << 2), f32x4.mul(s4, f32x4.mul(p, f32x4.sub(dp, mean))));
  }
  for (let at: usize = 0; at < width; at += 32) {
    const x0 = v128.load(q + at), x1 = v128.load(q + at, 16), g0 = v128.load(dOut + at), g1 = v128.load(dOut + at, 16);
    let acc0 = f32x4.splat(0), acc1 = acc0, k = keys + at, dk = dKeys + at, dv = dValues + at;
    for (let j = 0; j < n; j++) {
      const p = v128.load32_splat(scratch + (<usize>j << 2)), ds = v128.load32_splat(slopes + (<usize>j << 2));
      acc0 = f32x4.add(acc0, f32x4.mul(ds, v128.load(k)));
      acc1 = f32x4.add(acc1, f32x4.mul(ds, v128.load(k, 16)));
      v128.store(dk, f32x4.add(v128.load(dk), f32x4.mul(ds, x0)));
      v128.store(dk, f32x4.add(v128.load(dk, 16), f32x4.mul(ds, x1)), 16);
      v128.store(dv, f32x4.add(v128.load(dv), f32x4.mul(p, g0)));
      v128.store(dv, f32x4.add(v128.load(dv, 16), f32x4.mul(p, g1)), 16);
      k += stride; dk += stride; dv += stride;
    }
    v128.store(dq + at, acc0);
    v128.store(dq + at, acc1, 16);
  }
}

/**
 * Serving attention: each of n query rows (q, row length ldq; heads·hd wide) looks at the first lens[r] entries of its own table.
 * tables: i32 [n], the byte address of row r's list of cache rows (i32 each); keys, values: cache pools of rows kvHeads·hd long.
 * A prompt's rows share one table with growing lens, a decoding row has its request's: both in one call. scratch: longest lens rounded up to 4 floats.
 */
export function attendCached(
  q: usize, ldq: i32, n: i32, tables: usize, lens: usize, keys: usize, values: usize, heads: i32, kvHeads: i32, hd: i32, scale: f32, out: usize, ldo: i32, scratch: usize,
): void {
  const stride = <usize>(kvHeads * hd) << 2, share = heads / kvHeads;
  for (let r = 0; r < n; r++) {
    const table = <usize>load<i32>(tables + (<usize>r << 2)), len = load<i32>(lens + (<usize>r << 2));
    for (let h = 0; h < heads; h++) {
      const head = <usize>(h * hd) << 2, kvHead = <usize>(h / share * hd) << 2;
      attendOne(q + (<usize>(r * ldq) << 2) + head, keys + kvHead, values + kvHead, table, len, stride, hd, scale, out + (<usize>(r * ldo) << 2) + head, scratch);
    }
  }
}

/** Writes row i of src (at src + 4·i·ld, `width` floats) to row rows[i] of a cache pool whose rows are `width` long. */
export function storeRows(src: usize, ld: i32, rows: usize, pool: usize, n: i32, width: i32): void {
  const bytes = <usize>width << 2;
  for (let i = 0; i < n; i++) memory.copy(pool + <usize>load<i32>(rows + (<usize>i << 2)) * bytes, src + (<usize>(i * ld) << 2), bytes);
}
