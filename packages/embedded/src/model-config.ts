import { SlimeError } from "@slime/core";
import { parseRope, type RopeScaling, ropeScalingJson } from "./rope.js";

/** The shape of a decoder, as the kernels need it. Head and row sizes are multiples of 8 floats (two SIMD registers). */
export interface ModelConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  /** Grouped-query attention: each key/value head serves heads / kvHeads query heads. */
  readonly kvHeads: number;
  readonly headDim: number;
  /** RMSNorm of every query and key head before RoPE: Qwen3 has it, Llama not. */
  readonly qkNorm: boolean;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
  readonly normEps: number;
  /** The head's matrix is the embedding's. */
  readonly tiedHead: boolean;
  /** Longest sequence, prompt and response together. */
  readonly positionsMax: number;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  /** Standard deviation of initial weights. */
  readonly initStd: number;
}

/** The shapes by the names of Hugging Face's classes: `qkNorm`, and the head size where config.json is silent; null: hidden size over heads. */
const architectures = {
  Qwen3ForCausalLM: { modelType: "qwen3", qkNorm: true, headDim: 128 },
  LlamaForCausalLM: { modelType: "llama", qkNorm: false, headDim: null },
} as const;
type Architecture = (typeof architectures)[keyof typeof architectures];

/** Reads a Hugging Face config.json. @throws `checkpoint.invalid` for a model that the kernels cannot hold, all reasons at once. */
export function parseModelConfig(json: unknown, path: string): ModelConfig {
  const fields = typeof json === "object" && json !== null && !Array.isArray(json) ? (json as Readonly<Record<string, unknown>>) : {};
  const problems: string[] = [];
  const count = (name: string, fallback?: number): number => {
    const value = fields[name] ?? fallback;
    if (typeof value === "number" && Number.isInteger(value) && value > 0) return value;
    problems.push(`${name} must be a positive integer, found ${JSON.stringify(value)}`);
    return 1;
  };
  const real = (name: string, fallback: number): number => {
    const value = fields[name] ?? fallback;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    problems.push(`${name} must be a positive number, found ${JSON.stringify(value)}`);
    return fallback;
  };
  const architecture = architectureOf(fields);
  if (architecture === null)
    problems.push(
      `architectures must be one of ${Object.keys(architectures).join(", ")}, found ${JSON.stringify(fields["architectures"])}${fields["model_type"] === undefined ? "" : ` (model_type ${JSON.stringify(fields["model_type"])})`}`,
    );
  for (const name of ["attention_bias", "mlp_bias"])
    if (fields[name] === true) problems.push(`biases are not supported: ${name} must be false`);
  if ((fields["hidden_act"] ?? "silu") !== "silu")
    problems.push(`hidden_act must be "silu", found ${JSON.stringify(fields["hidden_act"])}`);
  if (fields["use_sliding_window"] === true) problems.push("sliding windows are not supported: use_sliding_window must be false");
  if ((fields["quantization_config"] ?? null) !== null)
    problems.push("quantised weights are not supported: quantization_config must be absent; use the F32, F16 or BF16 checkpoint");
  const heads = count("num_attention_heads");
  const hiddenSize = count("hidden_size");
  const config: ModelConfig = {
    vocabSize: count("vocab_size"),
    hiddenSize,
    intermediateSize: count("intermediate_size"),
    layers: count("num_hidden_layers"),
    heads,
    kvHeads: count("num_key_value_heads", heads),
    headDim: count("head_dim", architecture?.headDim ?? Math.floor(hiddenSize / heads)),
    qkNorm: architecture?.qkNorm ?? false,
    ...parseRope(fields, problems),
    normEps: real("rms_norm_eps", 1e-6),
    tiedHead: fields["tie_word_embeddings"] === true,
    positionsMax: count("max_position_embeddings", 2048),
    bosTokenId: typeof fields["bos_token_id"] === "number" ? fields["bos_token_id"] : null,
    eosTokenIds: tokenIdsOf(fields["eos_token_id"]),
    initStd: real("initializer_range", 0.02),
  };
  problems.push(...configProblems(config));
  if (problems.length > 0)
    throw new SlimeError("checkpoint.invalid", `${path}: ${problems.join("; ")}`, { path, reason: problems.join("; ") });
  return config;
}

/** What keeps the kernels from holding this shape; empty when nothing does. */
export function configProblems(config: ModelConfig): string[] {
  const problems: string[] = [];
  for (const [name, value] of Object.entries({
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    head_dim: config.headDim,
  })) {
    if (value % 8 !== 0) problems.push(`${name} must be a multiple of 8, found ${value}`);
  }
  if (config.heads % config.kvHeads !== 0)
    problems.push(`num_attention_heads (${config.heads}) must be a multiple of num_key_value_heads (${config.kvHeads})`);
  return problems;
}

/** config.json as Hugging Face's Qwen3 or Llama classes read it. */
export function modelConfigJson(config: ModelConfig): Readonly<Record<string, unknown>> {
  const architecture: keyof typeof architectures = config.qkNorm ? "Qwen3ForCausalLM" : "LlamaForCausalLM";
  return {
    architectures: [architecture],
    attention_bias: false,
    attention_dropout: 0,
    ...(config.bosTokenId === null ? {} : { bos_token_id: config.bosTokenId }),
    ...(config.eosTokenIds.length === 0
      ? {}
      : { eos_token_id: config.eosTokenIds.length === 1 ? config.eosTokenIds[0] : config.eosTokenIds }),
    head_dim: config.headDim,
    hidden_act: "silu",
    hidden_size: config.hiddenSize,
    initializer_range: config.initStd,
    intermediate_size: config.intermediateSize,
    max_position_embeddings: config.positionsMax,
    ...(config.qkNorm ? {} : { mlp_bias: false }),
    model_type: architectures[architecture].modelType,
    num_attention_heads: config.heads,
    num_hidden_layers: config.layers,
    num_key_value_heads: config.kvHeads,
    rms_norm_eps: config.normEps,
    rope_scaling: ropeScalingJson(config.ropeScaling),
    rope_theta: config.ropeTheta,
    tie_word_embeddings: config.tiedHead,
    torch_dtype: "float32",
    ...(config.qkNorm ? { use_sliding_window: false } : {}),
    vocab_size: config.vocabSize,
  };
}

/** One id, several, or none, as `eos_token_id` holds them. */
export function tokenIdsOf(value: unknown): readonly number[] {
  return [value ?? []].flat().filter((id): id is number => typeof id === "number");
}

/** By `architectures`, or where a file has none by `model_type`. */
function architectureOf(fields: Readonly<Record<string, unknown>>): Architecture | null {
  const named: unknown = Array.isArray(fields["architectures"]) ? fields["architectures"][0] : undefined;
  if (typeof named === "string") return Object.hasOwn(architectures, named) ? architectures[named as keyof typeof architectures] : null;
  return Object.values(architectures).find(({ modelType }) => modelType === fields["model_type"]) ?? null;
}
