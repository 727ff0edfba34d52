import type { Clock } from "@slime/core";
import type { EmbeddedEngine } from "./engine.js";

type Json = Readonly<Record<string, unknown>>;

/** What this server calls itself where SGLang puts its version. */
export const serverName = "slime-embedded 0.1.0";

/** GET /model_info. */
export function modelInfo(engine: EmbeddedEngine): Json {
  return {
    model_path: engine.modelPath,
    tokenizer_path: engine.tokenizer === null ? null : engine.modelPath,
    is_generation: true,
    weight_version: engine.weightVersion,
    model_type: engine.config.qkNorm ? "qwen3" : "llama",
    architectures: [engine.config.qkNorm ? "Qwen3ForCausalLM" : "LlamaForCausalLM"],
  };
}

/** Sizes and limits under SGLang's names, and what this server can do that a client should probe for. */
export function serverInfo(engine: EmbeddedEngine): Json {
  const { config, limits, scheduler } = engine;
  return {
    ...modelInfo(engine),
    version: serverName,
    status: engine.stopped === null ? "ready" : "stopped",
    tp_size: 1,
    pp_size: 1,
    dp_size: 1,
    ep_size: 1,
    num_gpus: 0,
    disaggregation_mode: "null",
    encoder_only: false,
    context_length: config.positionsMax,
    vocab_size: config.vocabSize,
    max_total_num_tokens: engine.kvTokensMax,
    max_req_input_len: config.positionsMax - 1,
    max_running_requests: limits.runningMax,
    max_queued_requests: limits.waitingMax,
    paused: scheduler.paused,
    startup_time: engine.startedWallMs / 1_000,
    capabilities: {
      weight_sources: ["slime_shared_memory", "directory"],
      weight_checksum: "fnv1a64",
      weight_version_spans: true,
      deterministic_sampling: true,
    },
    internal_states: [{ ...load(engine) }],
  };
}

function load(engine: EmbeddedEngine): Json {
  const { scheduler, limits } = engine;
  const used = scheduler.kvTokensUsed;
  return {
    dp_rank: 0,
    num_running_reqs: scheduler.running,
    num_waiting_reqs: scheduler.waiting,
    num_used_tokens: used,
    max_total_num_tokens: engine.kvTokensMax,
    max_running_requests: limits.runningMax,
    token_usage: used / engine.kvTokensMax,
    output_tokens_total: scheduler.counts.outputTokens,
  };
}

/** GET /v1/loads, and `output_tokens_total` beyond SGLang: it rises while the engine works. */
export function loads(engine: EmbeddedEngine, clock: Clock): Json {
  return { timestamp: clock.wallMs() / 1_000, version: serverName, accelerator: "cpu", num_accelerators: 0, loads: [load(engine)] };
}

/** Prometheus text under SGLang's names. */
export function metrics(engine: EmbeddedEngine): string {
  const { counts, running, waiting, kvTokensUsed, paused } = engine.scheduler;
  const rows: readonly (readonly [string, "counter" | "gauge", string, number])[] = [
    ["sglang:num_running_reqs", "gauge", "Requests being decoded.", running],
    ["sglang:num_queue_reqs", "gauge", "Requests that wait for room.", waiting],
    ["sglang:num_used_tokens", "gauge", "Tokens in the KV cache.", kvTokensUsed],
    ["sglang:token_usage", "gauge", "Used part of the KV cache.", kvTokensUsed / engine.kvTokensMax],
    ["sglang:is_paused", "gauge", "1 while generation is paused.", paused ? 1 : 0],
    ["sglang:num_requests_total", "counter", "Requests accepted.", counts.requests],
    ["sglang:num_aborted_requests_total", "counter", "Requests aborted.", counts.aborted],
    ["sglang:num_retracted_requests_total", "counter", "Times a running request was sent back to the queue.", counts.retracted],
    ["sglang:prompt_tokens_total", "counter", "Input tokens accepted.", counts.inputTokens],
    ["sglang:generation_tokens_total", "counter", "Output tokens sampled.", counts.outputTokens],
    ["sglang:forward_steps_total", "counter", "Forward passes.", counts.steps],
  ];
  return rows.map(([name, kind, help, value]) => `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n${name} ${value}\n`).join("");
}
