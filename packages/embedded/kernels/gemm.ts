// Matrix product. Every element of C is summed in one order, whatever the tile it falls into: SUM terms at a time in ascending
// order of k, from zero, and these partial sums one after the other (onto what is there, where the product is added). So a row's result does
// not depend on how many rows share the call, and the error grows with SUM + K / SUM instead of K: one long sum over a real model's
// layers would be off by five times as much.

const ROWS: i32 = 64;
/** A multiple of SUM. */
const DEPTH: i32 = 256;
const SUM: i32 = 64;
/** Up to so many rows, B is read as it lies: decoding few requests reads every weight once, and memory sets the pace. */
const FEW: i32 = 3;
/** Columns of C whose partial sums stay in the first-level cache meanwhile. */
const RUN: i32 = 1024;
/** Room for the partial sums of FEW rows. */
const partial: usize = memory.data(12288, 64);
/** From so many rows on, and rows of B this far apart (bytes), columns of B are copied together first: strided, they fall into the same places of the cache. */
const PACK_ROWS: i32 = 12;
const PACK_STRIDE: usize = 2048;
/** Room for 32 columns of DEPTH rows. */
const packed: usize = memory.data(32768, 64);

/**
 * C = A·B (acc = 0) or C += A·B (acc = 1). A(i,k) lies at A + 4·(i·rsA + k·csA), so X·W and dYᵀ·X share this kernel;
 * B [K,N] and C [M,N] are row-major with row lengths ldb and ldc. Fast when N is a multiple of 8.
 */
export function gemm(M: i32, N: i32, K: i32, A: usize, rsA: i32, csA: i32, B: usize, ldb: i32, C: usize, ldc: i32, acc: i32): void {
  const ra = <usize>rsA << 2, ca = <usize>csA << 2, rb = <usize>ldb << 2, rc = <usize>ldc << 2;
  if (M <= FEW) return few(M, N, K, A, ra, ca, B, rb, C, rc, acc);
  for (let k0 = 0; k0 < K; k0 += DEPTH) {
    const depth = min(DEPTH, K - k0);
    const add = acc | i32(k0 > 0);
    const Bk = B + <usize>k0 * rb, Ak = A + <usize>k0 * ca;
    for (let i0 = 0; i0 < M; i0 += ROWS) {
      block(min(ROWS, M - i0), N, depth, Ak + <usize>i0 * ra, ra, ca, Bk, rb, C + <usize>i0 * rc, rc, add);
    }
  }
}

/** The product of few rows: runs of four rows of B are added to partial sums at once. */
function few(M: i32, N: i32, K: i32, A: usize, ra: usize, ca: usize, B: usize, rb: usize, C: usize, rc: usize, acc: i32): void {
  for (let j0 = 0; j0 < N; j0 += RUN) {
    const n = min(RUN, N - j0), from = B + (<usize>j0 << 2), to = C + (<usize>j0 << 2);
    for (let k0 = 0; k0 < K; k0 += SUM) {
      const first = k0 == 0 && !acc, end = min(K, k0 + SUM);
      const sums = first ? to : partial, rs = first ? rc : <usize>RUN << 2;
      for (let i = 0; i < M; i++) memory.fill(sums + <usize>i * rs, 0, <usize>n << 2);
      let k = k0;
      for (; k + 4 <= end; k += 4) {
        for (let i = 0; i < M; i++) addFour(n, A + <usize>i * ra + <usize>k * ca, ca, from + <usize>k * rb, rb, sums + <usize>i * rs);
      }
      for (; k < end; k++) {
        for (let i = 0; i < M; i++) addOne(n, load<f32>(A + <usize>i * ra + <usize>k * ca), from + <usize>k * rb, sums + <usize>i * rs);
      }
      if (!first) for (let i = 0; i < M; i++) addOne(n, 1, sums + <usize>i * rs, to + <usize>i * rc);
    }
  }
}

/** c[0…n) += a0·b0 + a1·b1 + a2·b2 + a3·b3, from left to right. */
function addFour(n: i32, a: usize, ca: usize, b: usize, rb: usize, c: usize): void {
  const x0 = v128.load32_splat(a), x1 = v128.load32_splat(a + ca), x2 = v128.load32_splat(a + 2 * ca), x3 = v128.load32_splat(a + 3 * ca);
  const b1 = b + rb, b2 = b1 + rb, b3 = b2 + rb, end = <usize>(n & ~3) << 2;
  for (let at: usize = 0; at < end; at += 16) {
    let sum = f32x4.add(f32x4.mul(x0, v128.load(b + at)), v128.load(c + at));
    sum = f32x4.add(f32x4.mul(x1, v128.load(b1 + at)), sum);
    sum = f32x4.add(f32x4.mul(x2, v128.load(b2 + at)), sum);
    v128.store(c + at, f32x4.add(f32x4.mul(x3, v128.load(b3 + at)), sum));
  }
  for (let at = end; at < <usize>n << 2; at += 4) {
    let sum: f32 = load<f32>(a) * load<f32>(b + at) + load<f32>(c + at);
    sum = load<f32>(a + ca) * load<f32>(b1 + at) + sum;
    sum = load<f32>(a + 2 * ca) * load<f32>(b2 + at) + sum;
    store<f32>(c + at, load<f32>(a + 3 * ca) * load<f32>(b3 + at) + sum);
  }
}

/** c[0…n) += a·b. */
function addOne(n: i32, a: f32, b: usize, c: usize): void {
  const x = f32x4.splat(a), end = <usize>(n & ~3) << 2;
  for (let at: usize = 0; at < end; at += 16) v128.store(c + at, f32x4.add(f32x4.mul(x, v128.load(b + at)), v128.load(c + at)));
  for (let at = end; at < <usize>n << 2; at += 4) store<f32>(c + at, a * load<f32>(b + at) + load<f32>(c + at));
}

function block(M: i32, N: i32, K: i32, A: usize, ra: usize, ca: usize, B: usize, rb: usize, C: usize, rc: usize, acc: i32): void {
  let j = 0;
  if (M >= PACK_ROWS && rb >= PACK_STRIDE) {
    for (; j + 32 <= N; j += 32) {
      pack32(K, B + (<usize>j << 2), rb);
      columns16(M, K, A, ra, ca, packed, 64, C + (<usize>j << 2), rc, acc);
      columns16(M, K, A, ra, ca, packed + (<usize>DEPTH << 6), 64, C + (<usize>j << 2) + 64, rc, acc);
    }
  }
  for (; j + 16 <= N; j += 16) columns16(M, K, A, ra, ca, B + (<usize>j << 2), rb, C + (<usize>j << 2), rc, acc);
  for (; j + 8 <= N; j += 8) {
    const Bj = B + (<usize>j << 2), Cj = C + (<usize>j << 2);
    let i = 0;
    for (; i + 4 <= M; i += 4) tile4x8(K, A + <usize>i * ra, ra, ca, Bj, rb, Cj + <usize>i * rc, rc, acc);
    for (; i < M; i++) tile1x8(K, A + <usize>i * ra, ca, Bj, rb, Cj + <usize>i * rc, acc);
  }
  for (; j < N; j++) {
    for (let i = 0; i < M; i++) {
      const c = C + <usize>i * rc + (<usize>j << 2);
      let a = A + <usize>i * ra, b = B + (<usize>j << 2);
      for (let k0 = 0; k0 < K; k0 += SUM) {
        let sum: f32 = 0;
        for (let k = min(SUM, K - k0); k > 0; k--) {
          sum = load<f32>(a) * load<f32>(b) + sum;
          a += ca;
          b += rb;
        }
        store<f32>(c, acc | k0 ? load<f32>(c) + sum : sum);
      }
    }
  }
}

/** Copies 32 columns of up to DEPTH rows of B to `packed`, 16 and 16. */
function pack32(K: i32, B: usize, rb: usize): void {
  let to = packed, from = B;
  const right = <usize>DEPTH << 6;
  for (let k = 0; k < K; k++) {
    v128.store(to, v128.load(from));
    v128.store(to, v128.load(from, 16), 16);
    v128.store(to, v128.load(from, 32), 32);
    v128.store(to, v128.load(from, 48), 48);
    v128.store(to + right, v128.load(from, 64));
    v128.store(to + right, v128.load(from, 80), 16);
    v128.store(to + right, v128.load(from, 96), 32);
    v128.store(to + right, v128.load(from, 112), 48);
    to += 64;
    from += rb;
  }
}

function columns16(M: i32, K: i32, A: usize, ra: usize, ca: usize, B: usize, rb: usize, C: usize, rc: usize, acc: i32): void {
  let i = 0;
  for (; i + 4 <= M; i += 4) {
    tile4x8(K, A + <usize>i * ra, ra, ca, B, rb, C + <usize>i * rc, rc, acc);
    tile4x8(K, A + <usize>i * ra, ra, ca, B + 32, rb, C + <usize>i * rc + 32, rc, acc);
  }
  for (; i < M; i++) tile1x16(K, A + <usize>i * ra, ca, B, rb, C + <usize>i * rc, acc);
}

/** C, or with acc C + c: how a partial sum joins the others. */
// @ts-ignore: decorator
@inline
function put(C: usize, c: v128, acc: i32): void {
  v128.store(C, acc ? f32x4.add(v128.load(C), c) : c);
}

// @ts-ignore: decorator
@inline
function tile4x8(K: i32, A: usize, ra: usize, ca: usize, B: usize, rb: usize, C: usize, rc: usize, acc: i32): void {
  const C1 = C + rc, C2 = C1 + rc, C3 = C2 + rc;
  let a0 = A, a1 = A + ra, a2 = a1 + ra, a3 = a2 + ra, b = B;
  for (let k0 = 0; k0 < K; k0 += SUM) {
    let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    for (let k = min(SUM, K - k0); k > 0; k--) {
      const b0 = v128.load(b), b1 = v128.load(b, 16);
      let x = v128.load32_splat(a0); c00 = f32x4.add(f32x4.mul(x, b0), c00); c01 = f32x4.add(f32x4.mul(x, b1), c01);
      x = v128.load32_splat(a1); c10 = f32x4.add(f32x4.mul(x, b0), c10); c11 = f32x4.add(f32x4.mul(x, b1), c11);
      x = v128.load32_splat(a2); c20 = f32x4.add(f32x4.mul(x, b0), c20); c21 = f32x4.add(f32x4.mul(x, b1), c21);
      x = v128.load32_splat(a3); c30 = f32x4.add(f32x4.mul(x, b0), c30); c31 = f32x4.add(f32x4.mul(x, b1), c31);
      a0 += ca; a1 += ca; a2 += ca; a3 += ca; b += rb;
    }
    const add = acc | k0;
    put(C, c00, add); put(C + 16, c01, add);
    put(C1, c10, add); put(C1 + 16, c11, add);
    put(C2, c20, add); put(C2 + 16, c21, add);
    put(C3, c30, add); put(C3 + 16, c31, add);
  }
}

// @ts-ignore: decorator
@inline
function tile1x8(K: i32, A: usize, ca: usize, B: usize, rb: usize, C: usize, acc: i32): void {
  let a = A, b = B;
  for (let k0 = 0; k0 < K; k0 += SUM) {
    let c0 = f32x4.splat(0), c1 = c0;
    for (let k = min(SUM, K - k0); k > 0; k--) {
      const x = v128.load32_splat(a);
      c0 = f32x4.add(f32x4.mul(x, v128.load(b)), c0);
      c1 = f32x4.add(f32x4.mul(x, v128.load(b, 16)), c1);
      a += ca;
      b += rb;
    }
    put(C, c0, acc | k0);
    put(C + 16, c1, acc | k0);
  }
}

/** One row over 16 columns: four sums in flight, as many as hide the adder's latency. */
// @ts-ignore: decorator
@inline
function tile1x16(K: i32, A: usize, ca: usize, B: usize, rb: usize, C: usize, acc: i32): void {
  let a = A, b = B;
  for (let k0 = 0; k0 < K; k0 += SUM) {
    let c0 = f32x4.splat(0), c1 = c0, c2 = c0, c3 = c0;
    for (let k = min(SUM, K - k0); k > 0; k--) {
      const x = v128.load32_splat(a);
      c0 = f32x4.add(f32x4.mul(x, v128.load(b)), c0);
      c1 = f32x4.add(f32x4.mul(x, v128.load(b, 16)), c1);
      c2 = f32x4.add(f32x4.mul(x, v128.load(b, 32)), c2);
      c3 = f32x4.add(f32x4.mul(x, v128.load(b, 48)), c3);
      a += ca;
      b += rb;
    }
    put(C, c0, acc | k0);
    put(C + 16, c1, acc | k0);
    put(C + 32, c2, acc | k0);
    put(C + 48, c3, acc | k0);
  }
}

/** dst[c, r] = src[r, c]; src is [rows, cols], dst rows are ldd long. In squares of 16, whole cache lines on both sides. */
export function transpose(src: usize, rows: i32, cols: i32, dst: usize, ldd: i32): void {
  const down = <usize>ldd << 2;
  for (let c0 = 0; c0 < cols; c0 += 16) {
    const cEnd = min(cols, c0 + 16);
    for (let r0 = 0; r0 < rows; r0 += 16) {
      const rEnd = min(rows, r0 + 16);
      for (let r = r0; r < rEnd; r++) {
        let from = src + (<usize>(r * cols + c0) << 2), to = dst + (<usize>(c0 * ldd + r) << 2);
        for (let c = c0; c < cEnd; c++) {
          store<f32>(to, load<f32>(from));
          from += 4;
          to += down;
        }
      }
    }
  }
}
