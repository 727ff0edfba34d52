import type { WeightSpan } from "./sample.js";
import type { ExportedTensor } from "./trainer.js";

/** The engine port: SGLang's HTTP surface, typed, plus what a weight push and a watchdog need. JSON names are SGLang's. */
export interface SamplingParams {
  readonly temperature: number;
  readonly top_p: number;
  readonly top_k: number;
  readonly max_new_tokens: number;
  readonly min_new_tokens?: number;
  readonly stop?: readonly string[];
  readonly stop_token_ids?: readonly number[];
  readonly ignore_eos?: boolean;
  readonly skip_special_tokens?: boolean;
  readonly spaces_between_special_tokens?: boolean;
  readonly no_stop_trim?: boolean;
  readonly sampling_seed?: number;
  /** Tokens between the chunks of a stream, each of which repeats all before it. */
  readonly stream_interval?: number;
}

export interface GenerateRequest {
  readonly rid: string;
  readonly input_ids: readonly number[];
  readonly sampling_params: SamplingParams;
  readonly return_logprob: boolean;
  /** Log-probs of input tokens from this position on; -1: none. */
  readonly logprob_start_len?: number;
}

export type FinishReason =
  | { readonly type: "stop"; readonly matched: number | string | null }
  | { readonly type: "length"; readonly length: number }
  | { readonly type: "abort"; readonly message: string };

export interface GenerateResult {
  readonly text: string;
  readonly outputIds: readonly number[];
  /** One per output token; empty unless asked for. */
  readonly outputLogProbs: readonly number[];
  /** One per input token from `logprob_start_len` on; the first is null (nothing before it). */
  readonly inputLogProbs: readonly (number | null)[];
  readonly finishReason: FinishReason;
  /** The version the server names in its reply: the newest that took part. */
  readonly weightVersion: string;
  /** Which output tokens came from which weights: from the engine's own record or a streamed count; else one span, `mixed` where it may have crossed a push. */
  readonly weightSpans: readonly WeightSpan[];
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

export type PauseMode = "abort" | "retract" | "in_place";

export interface EngineInfo {
  readonly url: string;
  readonly modelPath: string;
  readonly weightVersion: string;
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly server: string;
}

export interface EngineLoad {
  readonly running: number;
  readonly waiting: number;
  /** Output tokens since start: rises while it works. */
  readonly tokensTotal: number;
}

/** One engine. Every call has a deadline; refusals are `engine.refused`, a dead or silent engine is `engine.unavailable`. */
export interface Engine {
  readonly url: string;
  readonly generate: (
    request: GenerateRequest,
    options: {
      readonly signal?: AbortSignal;
      readonly timeoutMs: number;
      readonly onTokens?: (count: number, weightVersion: string) => void;
      /** A router that hashes sends requests of one key to one engine; others do not look. */
      readonly routingKey?: string;
    },
  ) => Promise<GenerateResult>;
  readonly health: (timeoutMs: number) => Promise<void>;
  readonly info: () => Promise<EngineInfo>;
  readonly load: () => Promise<EngineLoad>;
  readonly abort: (target: { readonly rid: string } | { readonly all: true }) => Promise<void>;
  readonly pause: (mode: PauseMode) => Promise<void>;
  readonly resume: () => Promise<void>;
  readonly flush: () => Promise<void>;
  readonly updateWeights: (request: WeightUpdate) => Promise<WeightReceipt>;
  readonly close: () => Promise<void>;
}

export interface WeightUpdate {
  readonly version: number;
  readonly source:
    | {
        readonly kind: "shared-memory";
        readonly path: string;
        readonly checksum: string;
        readonly bytes: number;
        readonly tensors: readonly ExportedTensor[];
      }
    | { readonly kind: "directory"; readonly path: string };
}

export interface WeightReceipt {
  readonly version: string;
  /** What the engine computed over what it loaded; null where the server cannot. */
  readonly checksum: string | null;
}
