import type { ModelConfig } from "./model-config.js";

/** One tensor under its Hugging Face name. Offsets and counts are in floats; shape is Hugging Face's ([out, in] for a projection). */
export interface TensorSlot {
  readonly name: string;
  readonly shape: readonly number[];
  readonly offset: number;
  readonly count: number;
  /** Norm weights start at 1 and are not decayed. */
  readonly norm: boolean;
}

/** Offsets of one layer's tensors, in floats from the start of the parameters. qkv and gateUp are each one matrix of adjacent Hugging Face tensors. */
export interface LayerSlots {
  readonly inputNorm: number;
  /** [qDim + 2·kvDim, hidden]: q_proj, k_proj, v_proj stacked. */
  readonly qkv: number;
  /** −1 without qk-norm. */
  readonly qNorm: number;
  readonly kNorm: number;
  /** [hidden, qDim] */
  readonly o: number;
  readonly postNorm: number;
  /** [2·intermediate, hidden]: gate_proj, up_proj stacked. */
  readonly gateUp: number;
  /** [hidden, intermediate] */
  readonly down: number;
}

/**
 * Where every parameter lies in one contiguous run of floats: `model.embed_tokens.weight` first, then the layers, `model.norm.weight`, `lm_head.weight`.
 * Gradients and moments use the same layout. L1: tensors are adjacent, in order, without overlap; each starts at a multiple of 4 floats (16 bytes).
 */
export interface ParameterLayout {
  readonly tensors: readonly TensorSlot[];
  /** Floats in all. */
  readonly count: number;
  readonly embed: number;
  readonly layers: readonly LayerSlots[];
  readonly finalNorm: number;
  /** [vocab, hidden]; equals `embed` for a tied head. */
  readonly head: number;
  readonly qDim: number;
  readonly kvDim: number;
  readonly qkvDim: number;
}

/** The layout of a shape: equal shapes have equal layouts, so offsets can cross processes. */
export function parameterLayout(config: ModelConfig): ParameterLayout {
  const tensors: TensorSlot[] = [];
  let at = 0;
  const add = (name: string, shape: readonly number[], norm = false): number => {
    const count = shape.reduce((a, b) => a * b, 1);
    const offset = at;
    tensors.push({ name, shape, offset, count, norm });
    at += count;
    return offset;
  };
  const { hiddenSize: d, intermediateSize: f } = config;
  const qDim = config.heads * config.headDim;
  const kvDim = config.kvHeads * config.headDim;
  const embed = add("model.embed_tokens.weight", [config.vocabSize, d]);
  const layers: LayerSlots[] = [];
  for (let i = 0; i < config.layers; i++) {
    const p = `model.layers.${i}`;
    const inputNorm = add(`${p}.input_layernorm.weight`, [d], true);
    const qkv = add(`${p}.self_attn.q_proj.weight`, [qDim, d]);
    add(`${p}.self_attn.k_proj.weight`, [kvDim, d]);
    add(`${p}.self_attn.v_proj.weight`, [kvDim, d]);
    const qNorm = config.qkNorm ? add(`${p}.self_attn.q_norm.weight`, [config.headDim], true) : -1;
    const kNorm = config.qkNorm ? add(`${p}.self_attn.k_norm.weight`, [config.headDim], true) : -1;
    const o = add(`${p}.self_attn.o_proj.weight`, [d, qDim]);
    const postNorm = add(`${p}.post_attention_layernorm.weight`, [d], true);
    const gateUp = add(`${p}.mlp.gate_proj.weight`, [f, d]);
    add(`${p}.mlp.up_proj.weight`, [f, d]);
    const down = add(`${p}.mlp.down_proj.weight`, [d, f]);
    layers.push({ inputNorm, qkv, qNorm, kNorm, o, postNorm, gateUp, down });
  }
  const finalNorm = add("model.norm.weight", [d], true);
  const head = config.tiedHead ? embed : add("lm_head.weight", [config.vocabSize, d]);
  return { tensors, count: at, embed, layers, finalNorm, head, qDim, kvDim, qkvDim: qDim + 2 * kvDim };
}
