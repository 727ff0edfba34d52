import { SlimeError } from "@slime/core";

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

const architectures = { Qwen3ForCausalLM: true, LlamaForCausalLM: false } as const;

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
  const named = Array.isArray(fields["architectures"]) ? (fields["architectures"] as readonly unknown[])[0] : undefined;
  const known = typeof named === "string" && Object.hasOwn(architectures, named);
  if (!known)
    problems.push(
      `architectures must be one of ${Object.keys(architectures).join(", ")}, found ${JSON.stringify(fields["architectures"])}`,
    );
  if (fields["attention_bias"] === true || fields["mlp_bias"] === true)
    problems.push("biases are not supported: attention_bias and mlp_bias must be false");
  if ((fields["hidden_act"] ?? "silu") !== "silu")
    problems.push(`hidden_act must be "silu", found ${JSON.stringify(fields["hidden_act"])}`);
  if ((fields["rope_scaling"] ?? null) !== null) problems.push("rope_scaling is not supported: it must be null");
  if (fields["use_sliding_window"] === true) problems.push("sliding windows are not supported: use_sliding_window must be false");
  const heads = count("num_attention_heads");
  const hiddenSize = count("hidden_size");
  const config: ModelConfig = {
    vocabSize: count("vocab_size"),
    hiddenSize,
    intermediateSize: count("intermediate_size"),
    layers: count("num_hidden_layers"),
    heads,
    kvHeads: count("num_key_value_heads", heads),
    headDim: count("head_dim", Math.floor(hiddenSize / heads)),
    qkNorm: known && architectures[named as keyof typeof architectures],
    ropeTheta: real("rope_theta", ropeThetaOf(fields["rope_parameters"])),
    normEps: real("rms_norm_eps", 1e-6),
    tiedHead: fields["tie_word_embeddings"] === true,
    positionsMax: count("max_position_embeddings", 2048),
    bosTokenId: typeof fields["bos_token_id"] === "number" ? fields["bos_token_id"] : null,
    eosTokenIds: [fields["eos_token_id"] ?? []].flat().filter((id): id is number => typeof id === "number"),
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
  return {
    architectures: [config.qkNorm ? "Qwen3ForCausalLM" : "LlamaForCausalLM"],
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
    model_type: config.qkNorm ? "qwen3" : "llama",
    num_attention_heads: config.heads,
    num_hidden_layers: config.layers,
    num_key_value_heads: config.kvHeads,
    rms_norm_eps: config.normEps,
    rope_scaling: null,
    rope_theta: config.ropeTheta,
    tie_word_embeddings: config.tiedHead,
    torch_dtype: "float32",
    ...(config.qkNorm ? { use_sliding_window: false } : {}),
    vocab_size: config.vocabSize,
  };
}

/** Newer versions of Hugging Face transformers nest the base under `rope_parameters`. */
function ropeThetaOf(parameters: unknown): number {
  const theta = typeof parameters === "object" && parameters !== null && "rope_theta" in parameters ? parameters.rope_theta : undefined;
  return typeof theta === "number" ? theta : 10_000;
}
