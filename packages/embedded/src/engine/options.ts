import { type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import { parameterLayout } from "../layout.js";
import type { ModelConfig } from "../model-config.js";

/** Every bound of the engine. Those that depend on the model's size are lowered for large models by `limitsFor`. */
export interface EngineLimits {
  /** Requests decoded together. */
  readonly runningMax: number;
  /** Requests that wait for room; one more is refused with 503. */
  readonly waitingMax: number;
  /** Tokens of the KV cache over all requests; a request takes its worst case (prompt + max_new_tokens) when admitted. */
  readonly kvTokensMax: number;
  /** Bytes of the KV cache: it holds fewer than `kvTokensMax` where a token takes much. */
  readonly kvBytesMax: number;
  /** Rows (prompt tokens and decoding requests) of one step: bounds how long the event loop is held. */
  readonly stepRowsMax: number;
  /** Multiply-adds of one step: fewer rows than `stepRowsMax` in a model of many parameters. A core does some 8e9 a second. */
  readonly stepWorkMax: number;
  /** Bytes of logits held at once. */
  readonly logitsBytesMax: number;
  /** Bytes of a request's body; more is refused with 413. */
  readonly bodyBytesMax: number;
  /** Requests of one body: list items times `n`. */
  readonly batchMax: number;
  /** How long /health_generate waits for its token, SGLang's own limit. */
  readonly healthMs: number;
  /** How long a weight update waits for running requests to end when the engine is not paused. */
  readonly updateWaitMs: number;
  /** How long a shutdown lets replies go out before it cuts connections. */
  readonly closeMs: number;
}

export const defaultEngineLimits: EngineLimits = {
  runningMax: 128,
  waitingMax: 8_192,
  kvTokensMax: 32_768,
  kvBytesMax: 512 << 20,
  stepRowsMax: 512,
  stepWorkMax: 6e9,
  logitsBytesMax: 64 << 20,
  bodyBytesMax: 64 << 20,
  batchMax: 4_096,
  healthMs: 20_000,
  updateWaitMs: 120_000,
  closeMs: 2_000,
};

/** Rows of a step, however large the model: fewer would read all weights for next to nothing. */
const stepRowsMin = 16;

/** The limits as they hold for a model: cache by its bytes, rows by their work; and so many requests at once that half of a step's rows are left for prompts. */
export function limitsFor(config: ModelConfig, limits: EngineLimits): EngineLimits {
  const kvBytes = config.layers * 2 * config.kvHeads * config.headDim * 4;
  const rows = Math.max(stepRowsMin, Math.floor(limits.stepWorkMax / parameterLayout(config).count));
  return {
    ...limits,
    kvTokensMax: Math.min(limits.kvTokensMax, Math.floor(limits.kvBytesMax / kvBytes)),
    stepRowsMax: Math.min(limits.stepRowsMax, rows),
    runningMax: Math.min(limits.runningMax, Math.ceil(rows / 2)),
  };
}

/** What an engine needs from outside to keep time, make chance and speak. */
export interface EngineContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** A request that the engine turns away, with the HTTP status that says so. */
export function refusal(status: number, reason: string, options?: ErrorOptions): SlimeError<"engine.refused"> {
  return new SlimeError("engine.refused", reason, { engine: "embedded", status, reason }, options);
}

/** @throws `config.invalid` with every limit that cannot work. */
export function checkLimits(limits: EngineLimits): void {
  const issues: string[] = [];
  for (const [name, value] of Object.entries(limits)) {
    if (!Number.isSafeInteger(value) || value <= 0) issues.push(`${name} must be a positive whole number, found ${value}`);
  }
  if (limits.runningMax > limits.stepRowsMax)
    issues.push(
      `runningMax (${limits.runningMax}) must not exceed stepRowsMax (${limits.stepRowsMax}): every running request takes a row of each step`,
    );
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
}
