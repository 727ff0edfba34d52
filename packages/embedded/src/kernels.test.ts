import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Arena } from "./kernels.js";

const floats = (seed: number, count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(seed * 12.9898 + i * 78.233) * 2);
const at = (values: ArrayLike<number>, i: number): number => values[i] ?? Number.NaN;
const bytes = (arena: Arena, address: number, count: number) => Buffer.from(new Uint8Array(arena.f32(address, count).slice().buffer));

describe("gemm", () => {
  const sizes = fc.record({
    M: fc.integer({ min: 1, max: 70 }),
    N: fc.integer({ min: 1, max: 33 }),
    K: fc.integer({ min: 1, max: 40 }),
    acc: fc.integer({ min: 0, max: 1 }),
    flip: fc.boolean(),
    seed: fc.nat(1000),
  });

  it("equals the plain triple loop, for rows and for transposed A", () => {
    const arena = new Arena(1 << 20);
    fc.assert(
      fc.property(sizes, ({ M, N, K, acc, flip, seed }) => {
        const mark = arena.mark();
        const [a, b, c] = [floats(seed, M * K), floats(seed + 1, K * N), floats(seed + 2, M * N)];
        const [A, B, C] = [arena.allocF32(a), arena.allocF32(b), arena.allocF32(c)];
        arena.kernels.gemm(M, N, K, A, flip ? 1 : K, flip ? M : 1, B, N, C, N, acc);
        const out = arena.f32(C, M * N);
        for (let i = 0; i < M; i++) {
          for (let j = 0; j < N; j++) {
            let sum = acc ? at(c, i * N + j) : 0;
            for (let k = 0; k < K; k++) sum += at(a, flip ? k * M + i : i * K + k) * at(b, k * N + j);
            expect(Math.abs(at(out, i * N + j) - sum)).toBeLessThan(1e-4);
          }
        }
        arena.release(mark);
      }),
      { seed: 1, numRuns: 60 },
    );
  });

  it.each([
    ["narrow", 24],
    ["with columns left over", 45],
    ["wide enough to be packed", 600],
    ["wider than a run", 2_100],
  ])("gives a row the same bits whatever other rows share the call: %s", (_, N) => {
    const arena = new Arena(1 << 20);
    const [rows, K] = [37, 300];
    const [A, B, C, D] = [arena.allocF32(floats(3, rows * K)), arena.allocF32(floats(4, K * N)), arena.alloc(rows * N), arena.alloc(N)];
    for (const M of [rows, 16, 7, 3, 2]) {
      arena.kernels.gemm(M, N, K, A, K, 1, B, N, C, N, 0);
      for (let row = 0; row < M; row++) {
        arena.kernels.gemm(1, N, K, A + row * K * 4, K, 1, B, N, D, N, 0);
        expect(Buffer.compare(bytes(arena, D, N), bytes(arena, C + row * N * 4, N))).toBe(0);
      }
    }
  });

  it("adds the sum of its terms to what is there, in one order", () => {
    const arena = new Arena(1 << 20);
    const [M, N, K] = [13, 530, 9];
    const [a, b, c] = [floats(5, M * K), floats(6, K * N), floats(7, M * N)];
    for (const count of [1, 3, M]) {
      const [A, B, C] = [arena.allocF32(a), arena.allocF32(b), arena.allocF32(c)];
      arena.kernels.gemm(count, N, K, A, K, 1, B, N, C, N, 1);
      const out = arena.f32(C, count * N);
      for (let i = 0; i < count; i++) {
        for (let j = 0; j < N; j++) {
          let sum = 0;
          for (let k = 0; k < K; k++) sum = Math.fround(Math.fround(at(a, i * K + k) * at(b, k * N + j)) + sum);
          expect(at(out, i * N + j)).toBe(Math.fround(at(c, i * N + j) + sum));
        }
      }
    }
  });
});

describe("transpose", () => {
  it("turns rows into columns, at any size", () => {
    const arena = new Arena(1 << 20);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 50 }), fc.nat(5), (rows, cols, more) => {
        const mark = arena.mark();
        const values = floats(rows, rows * cols);
        const [from, to] = [arena.allocF32(values), arena.alloc(cols * (rows + more))];
        arena.kernels.transpose(from, rows, cols, to, rows + more);
        const out = arena.f32(to, cols * (rows + more));
        for (let r = 0; r < rows; r++)
          for (let c = 0; c < cols; c++) if (at(out, c * (rows + more) + r) !== at(values, r * cols + c)) throw new Error(`${r}, ${c}`);
        arena.release(mark);
      }),
      { seed: 5, numRuns: 40 },
    );
  });
});

describe("arena", () => {
  it("K1: grows on demand, keeps contents, and a released place is used again", () => {
    const arena = new Arena();
    const first = arena.allocF32([1, 2, 3]);
    const mark = arena.mark();
    const big = arena.alloc(1 << 20);
    arena.f32(big, 1 << 20).fill(7);
    expect([...arena.f32(first, 3)]).toEqual([1, 2, 3]);
    arena.release(mark);
    expect(arena.alloc(8)).toBe(big);
  });

  it("says what does not fit, and goes on", () => {
    const arena = new Arena();
    const mark = arena.mark();
    expect(() => arena.alloc(2 ** 30)).toThrow(/at most 4 GiB.*smaller micro-batches/);
    arena.release(mark);
    expect(arena.alloc(4)).toBe(mark);
  });
});
