import { invariant } from "@slime/core";
import { HeadPass, type PositionGradients, type PositionValues } from "./head-pass.js";
import type { Arena } from "./kernels.js";
import type { LayerSlots } from "./layout.js";
import type { ModelConfig } from "./model-config.js";
import type { PackedSequences } from "./packing.js";
import { ropeTables } from "./rope.js";
import type { LayerWeights, WeightSet } from "./weights.js";

/** Logits held at once, in floats: 64 MB. */
const logitsFloatsMaxDefault = 1 << 24;

/** What the backward pass needs of one layer; byte addresses. */
interface LayerActivations {
  readonly x: number;
  readonly h1: number;
  readonly rstd1: number;
  readonly raw: number;
  readonly rstdQ: number;
  readonly rstdK: number;
  readonly qkv: number;
  readonly attn: number;
  readonly lse: number;
  readonly x2: number;
  readonly h2: number;
  readonly rstd2: number;
  readonly gateUp: number;
  readonly act: number;
}

interface PackedPlace {
  readonly n: number;
  readonly sequences: number;
  readonly longest: number;
  readonly tokens: number;
  readonly positions: number;
  readonly cu: number;
  /** Attention's scratch: two rows of the longest sequence. */
  readonly scratch: number;
}

/**
 * A decoder of the Qwen3 or Llama shape: pre-norm RMSNorm, qk-norm (Qwen3 alone), RoPE, grouped-query attention, SwiGLU. Layers are static and the backward pass is written
 * by hand; both are bit-deterministic. Sequences are packed: one row per token, no padding, attention stays within each sequence.
 * D1: a token's values depend on its own sequence alone, bit for bit; D2: gradients are added to, never set; D3: every call leaves the arena as it found it.
 */
export class Decoder {
  readonly config: ModelConfig;
  readonly arena: Arena;
  readonly #cos: number;
  readonly #sin: number;
  readonly #logitsFloatsMax: number;

  constructor(arena: Arena, config: ModelConfig, logitsFloatsMax = logitsFloatsMaxDefault) {
    this.#logitsFloatsMax = logitsFloatsMax;
    this.arena = arena;
    this.config = config;
    const { cos, sin } = ropeTables(arena, config);
    this.#cos = cos;
    this.#sin = sin;
  }

  /** Forward only: memory for one layer at a time. */
  logProbs(weights: WeightSet, packed: PackedSequences, temperature: number): PositionValues {
    const mark = this.arena.mark();
    try {
      const place = this.#place(packed);
      const x = this.#embed(weights, place);
      const next = this.arena.alloc(place.n * this.config.hiddenSize);
      const inner = this.arena.mark();
      for (const layer of weights.layers) {
        this.#layer(layer, place, x, next, false);
        this.arena.kernels.copy(x, next, place.n * this.config.hiddenSize);
        this.arena.release(inner);
      }
      return this.#head(weights, packed, x, temperature).values();
    } finally {
      this.arena.release(mark);
    }
  }

  /**
   * Forward, the caller's loss, backward. Parameter gradients are added at `grads` (a byte address, `weights.layout.count` floats).
   * @param loss gets the values of the wanted positions and gives the loss's derivative for each.
   */
  accumulate(
    weights: WeightSet,
    packed: PackedSequences,
    temperature: number,
    grads: number,
    loss: (values: PositionValues) => PositionGradients,
  ): void {
    const mark = this.arena.mark();
    try {
      const place = this.#place(packed);
      const kept: LayerActivations[] = [];
      let x = this.#embed(weights, place);
      for (const layer of weights.layers) {
        const next = this.arena.alloc(place.n * this.config.hiddenSize);
        kept.push(this.#layer(layer, place, x, next, true));
        x = next;
      }
      const head = this.#head(weights, packed, x, temperature);
      const dx = head.backward(grads, loss(head.values()));
      for (let i = kept.length - 1; i >= 0; i--) {
        const [layer, slots, activations] = [weights.layers[i], weights.layout.layers[i], kept[i]];
        invariant(layer && slots && activations, "L1: weights and layout have the same layers");
        const inner = this.arena.mark();
        this.#layerBackward(layer, slots, activations, place, dx, grads);
        this.arena.release(inner);
      }
      this.arena.kernels.scatterAddRows(place.tokens, dx, grads + weights.layout.embed * 4, place.n, this.config.hiddenSize);
    } finally {
      this.arena.release(mark);
    }
  }

  #head(weights: WeightSet, packed: PackedSequences, x: number, temperature: number): HeadPass {
    return new HeadPass(this.arena, { weights, packed, x, temperature, logitsFloatsMax: this.#logitsFloatsMax });
  }

  #place(packed: PackedSequences): PackedPlace {
    const { arena, config } = this;
    const n = packed.tokens_L.length;
    const sequences = packed.bounds.length - 1;
    let longest = 0;
    const positions = new Int32Array(n);
    for (let s = 0; s < sequences; s++) {
      const [from, to] = [packed.bounds[s] ?? 0, packed.bounds[s + 1] ?? 0];
      for (let i = from; i < to; i++) positions[i] = i - from;
      longest = Math.max(longest, to - from);
    }
    invariant(
      longest <= config.positionsMax,
      `a sequence of ${longest} tokens is longer than the model's ${config.positionsMax} positions`,
    );
    invariant(
      packed.tokens_L.every((id) => id >= 0 && id < config.vocabSize),
      `a token id lies outside of the vocabulary of ${config.vocabSize}`,
    );
    return {
      n,
      sequences,
      longest,
      tokens: arena.allocI32(packed.tokens_L),
      positions: arena.allocI32(positions),
      cu: arena.allocI32(packed.bounds),
      scratch: arena.alloc(2 * (longest + 4)),
    };
  }

  #embed(weights: WeightSet, place: PackedPlace): number {
    const d = this.config.hiddenSize;
    const x = this.arena.alloc(place.n * d);
    this.arena.kernels.gatherRows(place.tokens, weights.embed, x, place.n, d);
    return x;
  }

  /** One layer's forward pass, from x to next. Without `keep`, qk-norm works in place and what it returns must not be used. */
  #layer(w: LayerWeights, place: PackedPlace, x: number, next: number, keep: boolean): LayerActivations {
    const { arena, config } = this;
    const { kernels } = arena;
    const { hiddenSize: d, intermediateSize: f, heads, kvHeads, headDim: hd, normEps: eps } = config;
    const n = place.n;
    const qDim = heads * hd;
    const width = qDim + 2 * kvHeads * hd;

    const h1 = arena.alloc(n * d);
    const rstd1 = arena.alloc(n);
    kernels.rmsNorm(x, d, w.inputNorm, h1, d, rstd1, n, 1, d, eps);
    const raw = arena.alloc(n * width);
    kernels.gemm(n, width, d, h1, d, 1, w.qkvT, width, raw, width, 0);
    const qkv = keep && config.qkNorm ? arena.alloc(n * width) : raw;
    const rstdQ = arena.alloc(n * heads);
    const rstdK = arena.alloc(n * kvHeads);
    if (config.qkNorm) {
      if (qkv !== raw) kernels.copy(qkv, raw, n * width);
      kernels.rmsNorm(raw, width, w.qNorm, qkv, width, rstdQ, n, heads, hd, eps);
      kernels.rmsNorm(raw + qDim * 4, width, w.kNorm, qkv + qDim * 4, width, rstdK, n, kvHeads, hd, eps);
    }
    kernels.rope(qkv, width, n, heads + kvHeads, hd, place.positions, this.#cos, this.#sin, 0);
    const attn = arena.alloc(n * qDim);
    const lse = arena.alloc(n * heads);
    kernels.attention(qkv, width, place.cu, place.sequences, heads, kvHeads, hd, 1 / Math.sqrt(hd), attn, lse, place.scratch);
    const x2 = arena.alloc(n * d);
    kernels.copy(x2, x, n * d);
    kernels.gemm(n, d, qDim, attn, qDim, 1, w.oT, d, x2, d, 1);

    const h2 = arena.alloc(n * d);
    const rstd2 = arena.alloc(n);
    kernels.rmsNorm(x2, d, w.postNorm, h2, d, rstd2, n, 1, d, eps);
    const gateUp = arena.alloc(n * 2 * f);
    kernels.gemm(n, 2 * f, d, h2, d, 1, w.gateUpT, 2 * f, gateUp, 2 * f, 0);
    const act = arena.alloc(n * f);
    kernels.swiglu(gateUp, act, n, f);
    kernels.copy(next, x2, n * d);
    kernels.gemm(n, d, f, act, f, 1, w.downT, d, next, d, 1);
    return { x, h1, rstd1, raw, rstdQ, rstdK, qkv, attn, lse, x2, h2, rstd2, gateUp, act };
  }

  /** Turns dx, the gradient of the layer's output, into that of its input. */
  #layerBackward(w: LayerWeights, slots: LayerSlots, a: LayerActivations, place: PackedPlace, dx: number, grads: number): void {
    const { arena, config } = this;
    const { kernels } = arena;
    const { hiddenSize: d, intermediateSize: f, heads, kvHeads, headDim: hd } = config;
    const n = place.n;
    const qDim = heads * hd;
    const width = qDim + 2 * kvHeads * hd;
    const grad = (offset: number): number => grads + offset * 4;

    const dAct = arena.alloc(n * f);
    kernels.gemm(d, f, n, dx, 1, d, a.act, f, grad(slots.down), f, 1);
    kernels.gemm(n, f, d, dx, d, 1, w.down, f, dAct, f, 0);
    kernels.swigluBackward(a.gateUp, dAct, n, f);
    const dh = arena.alloc(n * d);
    kernels.gemm(2 * f, d, n, a.gateUp, 1, 2 * f, a.h2, d, grad(slots.gateUp), d, 1);
    kernels.gemm(n, d, 2 * f, a.gateUp, 2 * f, 1, w.gateUp, d, dh, d, 0);
    kernels.rmsNormBackward(a.x2, d, w.postNorm, a.rstd2, dh, d, dx, d, grad(slots.postNorm), n, 1, d, 1);

    const dAttn = arena.alloc(n * qDim);
    kernels.gemm(d, qDim, n, dx, 1, d, a.attn, qDim, grad(slots.o), qDim, 1);
    kernels.gemm(n, qDim, d, dx, d, 1, w.o, qDim, dAttn, qDim, 0);
    const dQkv = arena.alloc(n * width);
    kernels.fillZero(dQkv, n * width);
    kernels.attentionBackward(
      a.qkv,
      width,
      place.cu,
      place.sequences,
      heads,
      kvHeads,
      hd,
      1 / Math.sqrt(hd),
      a.attn,
      a.lse,
      dAttn,
      dQkv,
      place.scratch,
    );
    kernels.rope(dQkv, width, n, heads + kvHeads, hd, place.positions, this.#cos, this.#sin, 1);
    if (config.qkNorm) {
      const k = qDim * 4;
      kernels.rmsNormBackward(a.raw, width, w.qNorm, a.rstdQ, dQkv, width, dQkv, width, grad(slots.qNorm), n, heads, hd, 0);
      kernels.rmsNormBackward(a.raw + k, width, w.kNorm, a.rstdK, dQkv + k, width, dQkv + k, width, grad(slots.kNorm), n, kvHeads, hd, 0);
    }
    kernels.gemm(width, d, n, dQkv, 1, width, a.h1, d, grad(slots.qkv), d, 1);
    kernels.gemm(n, d, width, dQkv, width, 1, w.qkv, d, dh, d, 0);
    kernels.rmsNormBackward(a.x, d, w.inputNorm, a.rstd1, dh, d, dx, d, grad(slots.inputNorm), n, 1, d, 1);
  }
}
