import { invariant, SlimeError } from "@slime/core";
import { kernelsBase64 } from "./gen/kernels.js";

/**
 * The compiled kernels (kernels/*.ts, where each function's shapes are written). Pointers are byte addresses in the instance's memory;
 * counts are in elements. Names of arguments are kept here so that a call can be read.
 */
export interface KernelExports {
  readonly gemm: (
    M: number,
    N: number,
    K: number,
    A: number,
    rsA: number,
    csA: number,
    B: number,
    ldb: number,
    C: number,
    ldc: number,
    acc: number,
  ) => void;
  readonly transpose: (src: number, rows: number, cols: number, dst: number, ldd: number) => void;
  readonly rmsNorm: (
    x: number,
    ldx: number,
    w: number,
    y: number,
    ldy: number,
    rstd: number,
    n: number,
    groups: number,
    d: number,
    eps: number,
  ) => void;
  readonly rmsNormBackward: (
    x: number,
    ldx: number,
    w: number,
    rstd: number,
    dy: number,
    lddy: number,
    dx: number,
    lddx: number,
    dw: number,
    n: number,
    groups: number,
    d: number,
    acc: number,
  ) => void;
  readonly rope: (
    x: number,
    ldx: number,
    n: number,
    heads: number,
    hd: number,
    positions: number,
    cos: number,
    sin: number,
    inverse: number,
  ) => void;
  readonly swiglu: (gateUp: number, out: number, n: number, f: number) => void;
  readonly swigluBackward: (gateUp: number, dOut: number, n: number, f: number) => void;
  readonly gatherRows: (ids: number, table: number, out: number, n: number, d: number) => void;
  readonly scatterAddRows: (ids: number, rows: number, table: number, n: number, d: number) => void;
  readonly attention: (
    qkv: number,
    ld: number,
    cu: number,
    sequences: number,
    heads: number,
    kvHeads: number,
    hd: number,
    scale: number,
    out: number,
    lse: number,
    scratch: number,
  ) => void;
  readonly attentionBackward: (
    qkv: number,
    ld: number,
    cu: number,
    sequences: number,
    heads: number,
    kvHeads: number,
    hd: number,
    scale: number,
    out: number,
    lse: number,
    dOut: number,
    dQkv: number,
    scratch: number,
  ) => void;
  readonly attendCached: (
    q: number,
    ldq: number,
    n: number,
    tables: number,
    lens: number,
    keys: number,
    values: number,
    heads: number,
    kvHeads: number,
    hd: number,
    scale: number,
    out: number,
    ldo: number,
    scratch: number,
  ) => void;
  readonly storeRows: (src: number, ld: number, rows: number, pool: number, n: number, width: number) => void;
  readonly logProbs: (
    logits: number,
    ld: number,
    vocab: number,
    inverseTemperature: number,
    targets: number,
    n: number,
    logProb: number,
    lse: number,
    entropy: number,
  ) => void;
  readonly logProbsBackward: (
    logits: number,
    ld: number,
    vocab: number,
    inverseTemperature: number,
    targets: number,
    n: number,
    lse: number,
    entropy: number,
    dLogProb: number,
    dEntropy: number,
  ) => void;
  readonly softmaxRows: (logits: number, ld: number, vocab: number, inverseTemperature: number, n: number, probs: number) => void;
  readonly adam: (
    param: number,
    grad: number,
    m: number,
    v: number,
    count: number,
    gradScale: number,
    lr: number,
    beta1: number,
    beta2: number,
    eps: number,
    decay: number,
    correction1: number,
    correction2: number,
  ) => void;
  readonly sumSquares: (x: number, count: number) => number;
  readonly addInto: (to: number, from: number, count: number) => void;
  readonly fillZero: (at: number, count: number) => void;
  readonly copy: (to: number, from: number, count: number) => void;
  /** Of `bytes` bytes, going on from `hash`; JavaScript sees the 64 bits as signed. */
  readonly fnv1a64: (at: number, bytes: number, hash: bigint) => bigint;
}

const pageBytes = 65_536;
/** The module's own constants lie in the first page; arenas start behind it. */
const arenaStart = pageBytes;
/** WebAssembly's 32-bit addresses: 4 GiB. */
const pagesMax = 65_536;
/** Every allocation starts at a multiple of this: whole cache lines, and more than SIMD needs. */
const alignBytes = 64;

/** A place in an arena to return to; see `Arena.release`. */
export type ArenaMark = number;

/**
 * The kernels on a memory of their own, with a bump allocator. Allocations live until the mark below them is released.
 * K1: views are made anew after the memory grew, so take them by `f32`/`i32` at use and never keep one over an `alloc`.
 * K2: fresh memory is zero only when it was never used before; callers clear what must be zero.
 */
export class Arena {
  readonly kernels: KernelExports;
  readonly #memory: WebAssembly.Memory;
  #top = arenaStart;
  #buffer: ArrayBuffer;

  /** @param bytes to reserve at once; the memory grows when more is asked for. */
  constructor(bytes = 0) {
    const initial = Math.min(pagesMax, Math.ceil((arenaStart + bytes) / pageBytes) + 1);
    this.#memory = new WebAssembly.Memory({ initial, maximum: pagesMax });
    this.#buffer = this.#memory.buffer;
    const instance = new WebAssembly.Instance(kernelModule(), { env: { memory: this.#memory } });
    this.kernels = instance.exports as unknown as KernelExports;
  }

  /** Room for `count` 4-byte elements, as a byte address aligned to 64. @throws `config.invalid` past 4 GiB, or past what the machine gives. */
  alloc(count: number): number {
    invariant(Number.isSafeInteger(count) && count >= 0, `K2: cannot allocate ${count} elements`);
    const at = this.#top;
    this.#top = Math.ceil((at + count * 4) / alignBytes) * alignBytes;
    if (this.#top > this.#memory.buffer.byteLength) this.#grow();
    this.#buffer = this.#memory.buffer;
    return at;
  }

  #grow(): void {
    const held = this.#memory.buffer.byteLength / pageBytes;
    const pages = Math.ceil(this.#top / pageBytes) - held;
    const refuse = (cause?: unknown): never => {
      const issue = `the model and its activations need ${this.#top} bytes, and one rank has at most 4 GiB (32-bit WebAssembly) and what the machine has free; use a smaller model, smaller micro-batches or, in an engine, a lower kvBytesMax`;
      throw new SlimeError("config.invalid", issue, { issues: [issue] }, { cause });
    };
    if (held + pages > pagesMax) refuse();
    try {
      // A quarter more than needed: growing moves everything.
      this.#memory.grow(Math.min(pagesMax - held, Math.max(pages, held >> 2)));
    } catch (cause) {
      refuse(cause);
    }
  }

  mark(): ArenaMark {
    return this.#top;
  }

  /** Gives back everything allocated since the mark. */
  release(mark: ArenaMark): void {
    invariant(mark >= arenaStart && mark <= this.#top, "K2: a mark lies within what is allocated");
    this.#top = mark;
  }

  /** A view of `count` floats at a byte address, valid until the next `alloc`. */
  f32(at: number, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#buffer, at, count);
  }

  i32(at: number, count: number): Int32Array<ArrayBuffer> {
    return new Int32Array(this.#buffer, at, count);
  }

  /** Copies values in and returns their address. */
  allocI32(values: ArrayLike<number>): number {
    const at = this.alloc(values.length);
    this.i32(at, values.length).set(values);
    return at;
  }

  allocF32(values: ArrayLike<number>): number {
    const at = this.alloc(values.length);
    this.f32(at, values.length).set(values);
    return at;
  }

  /** Bytes in use, constants included. */
  get bytesUsed(): number {
    return this.#top;
  }
}

let compiled: WebAssembly.Module | undefined;

/** Compiled once per process, at first use (about 5 ms). */
function kernelModule(): WebAssembly.Module {
  compiled ??= new WebAssembly.Module(Buffer.from(kernelsBase64, "base64"));
  return compiled;
}
