import { parameterLayout, type TensorSlot } from "../layout.js";
import type { ModelConfig } from "../model-config.js";
import type { PackedSequences } from "../packing.js";

const at = (values: ArrayLike<number>, i: number): number => values[i] ?? Number.NaN;

/**
 * The decoder written plainly, in double precision, token by token from Hugging Face's own tensors: slow, and the judge of the kernels.
 * Shares nothing with them but the names of tensors. Returns log-probability and entropy of each wanted position.
 */
export function referenceLogProbs(
  config: ModelConfig,
  parameters: ArrayLike<number>,
  packed: PackedSequences,
  temperature: number,
): { readonly logProbs_T: number[]; readonly entropy_T: number[] } {
  const tensors = new Map(parameterLayout(config).tensors.map((tensor) => [tensor.name, tensor]));
  const find = (name: string): TensorSlot => {
    const slot = tensors.get(name);
    if (slot === undefined) throw new RangeError(`no tensor ${name}`);
    return slot;
  };
  const vector = (name: string): number[] => Array.from({ length: find(name).count }, (_, i) => at(parameters, find(name).offset + i));
  const times = (name: string, x: readonly number[]): number[] => {
    const { shape, offset } = find(name);
    const [rows, columns] = [shape[0] ?? 0, shape[1] ?? 0];
    return Array.from({ length: rows }, (_, r) => x.reduce((sum, value, c) => sum + value * at(parameters, offset + r * columns + c), 0));
  };
  const norm = (x: readonly number[], w: readonly number[]): number[] => {
    const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length + config.normEps);
    return x.map((v, i) => v * scale * at(w, i));
  };
  const rotate = (x: readonly number[], position: number): number[] => {
    const half = config.headDim / 2;
    return x.map((v, i) => {
      const angle = position * frequencyOf(config, i % half);
      const other = i < half ? -at(x, i + half) : at(x, i - half);
      return v * Math.cos(angle) + other * Math.sin(angle);
    });
  };
  const headsOf = (x: readonly number[]): number[][] =>
    Array.from({ length: x.length / config.headDim }, (_, h) => x.slice(h * config.headDim, (h + 1) * config.headDim));
  const add = (a: readonly number[], b: readonly number[]): number[] => a.map((v, i) => v + at(b, i));

  const hidden: number[][] = [];
  for (let s = 0; s + 1 < packed.bounds.length; s++) {
    let xs = Array.from(packed.tokens_L.slice(packed.bounds[s], packed.bounds[s + 1]), (token) =>
      vectorRow(parameters, find("model.embed_tokens.weight"), token),
    );
    for (let layer = 0; layer < config.layers; layer++) {
      const p = `model.layers.${layer}`;
      const normed = xs.map((x) => norm(x, vector(`${p}.input_layernorm.weight`)));
      const project = (name: string, normName: string) =>
        normed.map((x, position) =>
          headsOf(times(`${p}.self_attn.${name}.weight`, x)).map((h) =>
            rotate(config.qkNorm ? norm(h, vector(`${p}.self_attn.${normName}.weight`)) : h, position),
          ),
        );
      const queries = project("q_proj", "q_norm");
      const keys = project("k_proj", "k_norm");
      const values = normed.map((x) => headsOf(times(`${p}.self_attn.v_proj.weight`, x)));
      xs = xs.map((x, i) => {
        const mixed = (queries[i] ?? []).flatMap((q, h) => {
          const kv = Math.floor(h / (config.heads / config.kvHeads));
          const scores = keys
            .slice(0, i + 1)
            .map((k) => q.reduce((sum, v, c) => sum + v * at(k[kv] ?? [], c), 0) / Math.sqrt(config.headDim));
          const weights = softmax(scores);
          return q.map((_, c) => weights.reduce((sum, w, j) => sum + w * at(values[j]?.[kv] ?? [], c), 0));
        });
        const after = add(x, times(`${p}.self_attn.o_proj.weight`, mixed));
        const h = norm(after, vector(`${p}.post_attention_layernorm.weight`));
        const up = times(`${p}.mlp.up_proj.weight`, h);
        const gated = times(`${p}.mlp.gate_proj.weight`, h).map((g, c) => (g / (1 + Math.exp(-g))) * at(up, c));
        return add(after, times(`${p}.mlp.down_proj.weight`, gated));
      });
    }
    hidden.push(...xs);
  }
  const logProbs_T: number[] = [];
  const entropy_T: number[] = [];
  packed.rows.forEach((row, t) => {
    const x = norm(hidden[row] ?? [], vector("model.norm.weight"));
    const logits = times(config.tiedHead ? "model.embed_tokens.weight" : "lm_head.weight", x).map((v) => v / temperature);
    const probs = softmax(logits);
    logProbs_T.push(Math.log(at(probs, packed.targets[t] ?? -1)));
    entropy_T.push(-probs.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0));
  });
  return { logProbs_T, entropy_T };
}

/** Radians per position of pair j; Llama 3.1's scaling by wavelength: whole turns within the old length. */
function frequencyOf(config: ModelConfig, j: number): number {
  const plain = config.ropeTheta ** (-(2 * j) / config.headDim);
  const scaling = config.ropeScaling;
  if (scaling === null) return plain;
  if (scaling.kind === "linear") return plain / scaling.factor;
  const turns = (scaling.originalPositions * plain) / (2 * Math.PI);
  const share = (turns - scaling.lowFrequencyFactor) / (scaling.highFrequencyFactor - scaling.lowFrequencyFactor);
  const kept = Math.min(1, Math.max(0, share));
  return plain * kept + (plain / scaling.factor) * (1 - kept);
}

function vectorRow(parameters: ArrayLike<number>, slot: TensorSlot, row: number): number[] {
  const width = slot.shape[1] ?? 0;
  return Array.from({ length: width }, (_, c) => at(parameters, slot.offset + row * width + c));
}

function softmax(x: readonly number[]): number[] {
  const top = Math.max(...x);
  const e = x.map((v) => Math.exp(v - top));
  const total = e.reduce((sum, v) => sum + v, 0);
  return e.map((v) => v / total);
}
