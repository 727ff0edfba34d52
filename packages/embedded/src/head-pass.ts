import { invariant } from "@slime/core";
import type { Arena } from "./kernels.js";
import type { PackedSequences } from "./packing.js";
import type { WeightSet } from "./weights.js";

/** Per wanted position, in the order of `PackedSequences.rows`: log-probability of the target token, and entropy in nats. */
export interface PositionValues {
  readonly logProbs_T: Float32Array;
  readonly entropy_T: Float32Array;
}

/** The derivative of the loss with respect to what `PositionValues` holds. */
export interface PositionGradients {
  readonly dLogProbs_T: ArrayLike<number>;
  readonly dEntropy_T: ArrayLike<number>;
}

/** What a head pass works on. */
export interface HeadInput {
  readonly weights: WeightSet;
  readonly packed: PackedSequences;
  /** Byte address of the last layer's output, [tokens, hidden]. */
  readonly x: number;
  readonly temperature: number;
  /** Logits held at once, in floats; more rows are done in chunks, whose logits the backward pass computes again. */
  readonly logitsFloatsMax: number;
}

/** Final norm, head and log-softmax of one packed batch, for the wanted rows only; and the way back. Its memory is the caller's to release. */
export class HeadPass {
  readonly #arena: Arena;
  readonly #input: HeadInput;
  readonly #rows: number;
  readonly #chunkRows: number;
  readonly #rowIds: number;
  readonly #targets: number;
  readonly #x: number;
  readonly #rstd: number;
  readonly #h: number;
  readonly #logits: number;
  readonly #logProbs: number;
  readonly #lse: number;
  readonly #entropy: number;

  /** Runs the forward pass. */
  constructor(arena: Arena, input: HeadInput) {
    const { weights, packed, x } = input;
    const d = weights.config.hiddenSize;
    const rows = packed.rows.length;
    this.#arena = arena;
    this.#input = input;
    this.#rows = rows;
    this.#chunkRows = Math.max(1, Math.min(rows, Math.floor(input.logitsFloatsMax / weights.vocabPadded)));
    this.#rowIds = arena.allocI32(packed.rows);
    this.#targets = arena.allocI32(packed.targets);
    this.#x = arena.alloc(rows * d);
    this.#rstd = arena.alloc(rows);
    this.#h = arena.alloc(rows * d);
    this.#logits = arena.alloc(this.#chunkRows * weights.vocabPadded);
    this.#logProbs = arena.alloc(rows);
    this.#lse = arena.alloc(rows);
    this.#entropy = arena.alloc(rows);
    const { kernels } = arena;
    kernels.gatherRows(this.#rowIds, x, this.#x, rows, d);
    kernels.rmsNorm(this.#x, d, weights.finalNorm, this.#h, d, this.#rstd, rows, 1, d, weights.config.normEps);
    const [ld, vocab, inverse] = [weights.vocabPadded, weights.config.vocabSize, 1 / input.temperature];
    this.#chunks((at, count) => {
      this.#fillLogits(at, count);
      const [targets, logProbs, lse, entropy] = [this.#targets + at, this.#logProbs + at, this.#lse + at, this.#entropy + at];
      kernels.logProbs(this.#logits, ld, vocab, inverse, targets, count, logProbs, lse, entropy);
    });
  }

  values(): PositionValues {
    const copy = (at: number) => this.#arena.f32(at, this.#rows).slice();
    return { logProbs_T: copy(this.#logProbs), entropy_T: copy(this.#entropy) };
  }

  /** Adds the gradients of head and final norm at `grads`; returns the address of the gradient of `x`, newly allocated. */
  backward(grads: number, { dLogProbs_T, dEntropy_T }: PositionGradients): number {
    const arena = this.#arena;
    const { kernels } = arena;
    const { weights, packed, temperature } = this.#input;
    const { hiddenSize: d, vocabSize: vocab } = weights.config;
    const rows = this.#rows;
    invariant(dLogProbs_T.length === rows && dEntropy_T.length === rows, "one gradient per wanted position");
    const tokens = packed.tokens_L.length;
    const dx = arena.alloc(tokens * d);
    kernels.fillZero(dx, tokens * d);
    const mark = arena.mark();
    const dLogProbs = arena.allocF32(dLogProbs_T);
    const dEntropy = arena.allocF32(dEntropy_T);
    const dh = arena.alloc(rows * d);
    const [ld, inverse, logits, headGrad] = [weights.vocabPadded, 1 / temperature, this.#logits, grads + weights.layout.head * 4];
    this.#chunks((at, count) => {
      if (rows > this.#chunkRows) this.#fillLogits(at, count);
      const [targets, lse, entropy] = [this.#targets + at, this.#lse + at, this.#entropy + at];
      kernels.logProbsBackward(logits, ld, vocab, inverse, targets, count, lse, entropy, dLogProbs + at, dEntropy + at);
      kernels.gemm(vocab, d, count, logits, 1, ld, this.#h + at * d, d, headGrad, d, 1);
      kernels.gemm(count, d, vocab, logits, ld, 1, weights.head, d, dh + at * d, d, 0);
    });
    const normGrad = grads + weights.layout.finalNorm * 4;
    kernels.rmsNormBackward(this.#x, d, weights.finalNorm, this.#rstd, dh, d, dh, d, normGrad, rows, 1, d, 0);
    kernels.scatterAddRows(this.#rowIds, dh, dx, rows, d);
    arena.release(mark);
    return dx;
  }

  /** Calls with the byte offset of each chunk's first row in a column of floats, and its rows. */
  #chunks(work: (at: number, count: number) => void): void {
    for (let from = 0; from < this.#rows; from += this.#chunkRows) work(from * 4, Math.min(this.#chunkRows, this.#rows - from));
  }

  #fillLogits(at: number, count: number): void {
    const { weights } = this.#input;
    const d = weights.config.hiddenSize;
    const ld = weights.vocabPadded;
    this.#arena.kernels.gemm(count, ld, d, this.#h + at * d, d, 1, weights.headT, ld, this.#logits, ld, 0);
  }
}
