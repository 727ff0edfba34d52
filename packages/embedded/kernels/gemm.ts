// Matrix product. Every element of C is summed over k in ascending order, whatever the tile it falls into:
// so a row's result does not depend on how many rows share the call, and blocking over k changes no bit.

const ROWS: i32 = 64;
const DEPTH: i32 = 256;

/**
 * C = A·B (acc = 0) or C += A·B (acc = 1). A(i,k) lies at A + 4·(i·rsA + k·csA), so X·W and dYᵀ·X share this kernel;
 * B [K,N] and C [M,N] are row-major with row lengths ldb and ldc. Fast when N is a multiple of 8.
 */
export function gemm(M: i32, N: i32, K: i32, A: usize, rsA: i32, csA: i32, B: usize, ldb: i32, C: usize, ldc: i32, acc: i32): void {
  const ra = <usize>rsA << 2, ca = <usize>csA << 2, rb = <usize>ldb << 2, rc = <usize>ldc << 2;
  for (let k0 = 0; k0 < K; k0 += DEPTH) {
    const depth = min(DEPTH, K - k0);
    const add = acc | i32(k0 > 0);
    const Bk = B + <usize>k0 * rb, Ak = A + <usize>k0 * ca;
    for (let i0 = 0; i0 < M; i0 += ROWS) {
      block(min(ROWS, M - i0), N, depth, Ak + <usize>i0 * ra, ra, ca, Bk, rb, C + <usize>i0 * rc, rc, add);
    }
  }
}

function block(M: i32, N: i32, K: i32, A: usize, ra: usize, ca: usize, B: usize, rb: usize, C: usize, rc: usize, acc: i32): void {
  let j = 0;
  for (; j + 8 <= N; j += 8) {
    const Bj = B + (<usize>j << 2), Cj = C + (<usize>j << 2);
    let i = 0;
    for (; i + 4 <= M; i += 4) tile4x8(K, A + <usize>i * ra, ra, ca, Bj, rb, Cj + <usize>i * rc, rc, acc);
    for (; i < M; i++) tile1x8(K, A + <usize>i * ra, ca, Bj, rb, Cj + <usize>i * rc, acc);
  }
  for (; j < N; j++) {
    for (let i = 0; i < M; i++) {
      const c = C + <usize>i * rc + (<usize>j << 2);
      let sum: f32 = acc ? load<f32>(c) : 0;
      let a = A + <usize>i * ra, b = B + (<usize>j << 2);
      for (let k = 0; k < K; k++) {
        sum = load<f32>(a) * load<f32>(b) + sum;
        a += ca;
        b += rb;
      }
      store<f32>(c, sum);
    }
  }
}

// @ts-ignore: decorator
@inline
function tile4x8(K: i32, A: usize, ra: usize, ca: usize, B: usize, rb: usize, C: usize, rc: usize, acc: i32): void {
  const C1 = C + rc, C2 = C1 + rc, C3 = C2 + rc;
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  if (acc) {
    c00 = v128.load(C); c01 = v128.load(C, 16);
    c10 = v128.load(C1); c11 = v128.load(C1, 16);
    c20 = v128.load(C2); c21 = v128.load(C2, 16);
    c30 = v128.load(C3); c31 = v128.load(C3, 16);
  }
  let a0 = A, a1 = A + ra, a2 = a1 + ra, a3 = a2 + ra, b = B;
  for (let k = 0; k < K; k++) {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
    let x = v128.load32_splat(a0); c00 = f32x4.add(f32x4.mul(x, b0), c00); c01 = f32x4.add(f32x4.mul(x, b1), c01);
    x = v128.load32_splat(a1); c10 = f32x4.add(f32x4.mul(x, b0), c10); c11 = f32x4.add(f32x4.mul(x, b1), c11);
    x = v128.load32_splat(a2); c20 = f32x4.add(f32x4.mul(x, b0), c20); c21 = f32x4.add(f32x4.mul(x, b1), c21);
    x = v128.load32_splat(a3); c30 = f32x4.add(f32x4.mul(x, b0), c30); c31 = f32x4.add(f32x4.mul(x, b1), c31);
    a0 += ca; a1 += ca; a2 += ca; a3 += ca; b += rb;
  }
  v128.store(C, c00); v128.store(C, c01, 16);
  v128.store(C1, c10); v128.store(C1, c11, 16);
  v128.store(C2, c20); v128.store(C2, c21, 16);
  v128.store(C3, c30); v128.store(C3, c31, 16);
}

// @ts-ignore: decorator
@inline
function tile1x8(K: i32, A: usize, ca: usize, B: usize, rb: usize, C: usize, acc: i32): void {
  let c0 = f32x4.splat(0), c1 = c0;
  if (acc) { c0 = v128.load(C); c1 = v128.load(C, 16); }
  let a = A, b = B;
  for (let k = 0; k < K; k++) {
    const x = v128.load32_splat(a);
    c0 = f32x4.add(f32x4.mul(x, v128.load(b)), c0);
    c1 = f32x4.add(f32x4.mul(x, v128.load(b, 16)), c1);
    a += ca;
    b += rb;
  }
  v128.store(C, c0); v128.store(C, c1, 16);
}

/** dst[c, r] = src[r, c]; src is [rows, cols], dst rows are ldd long. */
export function transpose(src: usize, rows: i32, cols: i32, dst: usize, ldd: i32): void {
  for (let r = 0; r < rows; r++) {
    let from = src + (<usize>(r * cols) << 2), to = dst + (<usize>r << 2);
    for (let c = 0; c < cols; c++) {
      store<f32>(to, load<f32>(from));
      from += 4;
      to += <usize>ldd << 2;
    }
  }
}
