import { invariant, seededRandom } from "@slime/core";
import type { Arena } from "./kernels.js";
import { type ParameterLayout, parameterLayout } from "./layout.js";
import type { ModelConfig } from "./model-config.js";

/** Byte addresses of one layer's weights. Those ending in T are transposed copies, [in, out], which the forward pass multiplies by. */
export interface LayerWeights {
  readonly inputNorm: number;
  readonly qkv: number;
  readonly qkvT: number;
  /** 0 without qk-norm. */
  readonly qNorm: number;
  readonly kNorm: number;
  readonly o: number;
  readonly oT: number;
  readonly postNorm: number;
  readonly gateUp: number;
  readonly gateUpT: number;
  readonly down: number;
  readonly downT: number;
}

/**
 * One set of weights in an arena: the parameters in Hugging Face's layout, one contiguous run, and transposed copies of the matrices.
 * M1: after any write to the parameters, `refresh` must run before the next forward pass.
 */
export class WeightSet {
  readonly config: ModelConfig;
  readonly layout: ParameterLayout;
  /** Byte address of the parameters. */
  readonly base: number;
  readonly embed: number;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: number;
  readonly head: number;
  /** [hidden, vocabPadded]; columns past the vocabulary are zero. */
  readonly headT: number;
  /** Vocabulary rounded up to 8: the row length of logits. */
  readonly vocabPadded: number;
  readonly #arena: Arena;

  constructor(arena: Arena, config: ModelConfig, layout: ParameterLayout = parameterLayout(config)) {
    this.#arena = arena;
    this.config = config;
    this.layout = layout;
    this.vocabPadded = Math.ceil(config.vocabSize / 8) * 8;
    const { hiddenSize: d, intermediateSize: f } = config;
    this.base = arena.alloc(layout.count);
    const at = (offset: number): number => (offset < 0 ? 0 : this.base + offset * 4);
    this.embed = at(layout.embed);
    this.layers = layout.layers.map((slots) => ({
      inputNorm: at(slots.inputNorm),
      qkv: at(slots.qkv),
      qkvT: arena.alloc(d * layout.qkvDim),
      qNorm: at(slots.qNorm),
      kNorm: at(slots.kNorm),
      o: at(slots.o),
      oT: arena.alloc(layout.qDim * d),
      postNorm: at(slots.postNorm),
      gateUp: at(slots.gateUp),
      gateUpT: arena.alloc(d * 2 * f),
      down: at(slots.down),
      downT: arena.alloc(f * d),
    }));
    this.finalNorm = at(layout.finalNorm);
    this.head = at(layout.head);
    this.headT = arena.alloc(d * this.vocabPadded);
    arena.kernels.fillZero(this.headT, d * this.vocabPadded);
  }

  /** The parameters as one view, valid until the arena's next `alloc`. */
  view(): Float32Array<ArrayBuffer> {
    return this.#arena.f32(this.base, this.layout.count);
  }

  /** Replaces all parameters and refreshes the transposed copies. The values may be `view()` itself, filled in place. */
  set(values: Float32Array): void {
    invariant(values.length === this.layout.count, `L1: ${values.length} values for ${this.layout.count} parameters`);
    const own = this.view();
    if (values.buffer !== own.buffer || values.byteOffset !== own.byteOffset) own.set(values);
    this.refresh();
  }

  copyFrom(other: WeightSet): void {
    invariant(other.#arena === this.#arena, "M1: weights are copied within one arena");
    this.#arena.kernels.copy(this.base, other.base, this.layout.count);
    this.refresh();
  }

  /** Makes the transposed copies follow the parameters. */
  refresh(): void {
    const { transpose } = this.#arena.kernels;
    const { hiddenSize: d, intermediateSize: f, vocabSize } = this.config;
    const { qDim, qkvDim } = this.layout;
    for (const layer of this.layers) {
      transpose(layer.qkv, qkvDim, d, layer.qkvT, qkvDim);
      transpose(layer.o, d, qDim, layer.oT, d);
      transpose(layer.gateUp, 2 * f, d, layer.gateUpT, 2 * f);
      transpose(layer.down, d, f, layer.downT, d);
    }
    transpose(this.head, vocabSize, d, this.headT, this.vocabPadded);
  }
}

/**
 * Initial weights from the seed alone: norms 1, everything else normal with `initStd`, the projections that write into the residual stream
 * scaled down by √(2·layers). Box–Muller over a seeded generator; equal seeds give equal bits on every machine.
 */
export function initialWeights(config: ModelConfig, seed: number): Float32Array {
  const layout = parameterLayout(config);
  const random = seededRandom(seed);
  const out = new Float32Array(layout.count);
  const residual = 1 / Math.sqrt(2 * config.layers);
  for (const tensor of layout.tensors) {
    if (tensor.norm) {
      out.fill(1, tensor.offset, tensor.offset + tensor.count);
      continue;
    }
    const std = config.initStd * (/\.(o_proj|down_proj)\.weight$/.test(tensor.name) ? residual : 1);
    for (let i = 0; i < tensor.count; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - random.unit())) * std;
      const angle = 2 * Math.PI * random.unit();
      out[tensor.offset + i] = radius * Math.cos(angle);
      out[tensor.offset + i + 1] = radius * Math.sin(angle);
    }
  }
  return out;
}
