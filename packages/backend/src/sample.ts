/**
 * One answer to one prompt, and many of them as columns.
 * A `Sample` is what hooks, graders and filters see; `SampleColumns` is what travels and trains: typed arrays by row.
 * Axes: `_N` rows (samples), `_T` response tokens of all rows, `_L` all tokens (prompt and response) of all rows.
 */
export type SampleStatus = "pending" | "completed" | "truncated" | "aborted" | "failed";

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

export type Prompt = string | readonly ChatMessage[];

/** Response tokens [from, to) came from weights of this version. Spans are ascending and cover the response. */
export interface WeightSpan {
  readonly version: number;
  readonly from: number;
  readonly to: number;
  /** True when the server could not say where within the span the version changed (an unstreamed request crossed a push). */
  readonly mixed: boolean;
}

/** A reward: a number, or named numbers of which `--reward-key` picks the one that trains. */
export type Reward = number | Readonly<Record<string, number>>;

/** A failure that belongs to one sample; it is never turned into a reward of zero. */
export interface SampleFailure {
  readonly code: string;
  readonly message: string;
}

export interface Sample {
  /** Counts prompts issued over the whole run. */
  readonly groupIndex: number;
  /** Counts samples over the whole run; `groupIndex * n + i`. */
  readonly index: number;
  /** The prompt instance in the ledger: `<epoch>:<row>`. All samples of a group share it. */
  readonly instanceId: string;
  /** One execution; siblings of a fan-out share it. */
  readonly rolloutId: number;
  readonly prompt: Prompt;
  /** Ids of the rendered prompt. */
  readonly promptTokens: readonly number[];
  readonly responseTokens: readonly number[];
  readonly response: string;
  /** Log-probability of each response token under the engine at sampling time; 0 for tokens nobody sampled. */
  readonly responseLogProbs: readonly number[];
  /** 1: trained, 0: not. Null: all ones. One per response token. */
  readonly lossMask: readonly number[] | null;
  readonly weightSpans: readonly WeightSpan[];
  readonly label: string | null;
  readonly reward: Reward | null;
  readonly status: SampleStatus;
  readonly failure: SampleFailure | null;
  /** Keeps its place in reward normalisation but trains nothing. */
  readonly removeSample: boolean;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Seconds spent outside generation (tools, environments). */
  readonly nonGenerationS: number;
}

/** Rows of samples as typed arrays. Offsets have one element more than rows: row i is [offsets[i], offsets[i+1]). */
export interface SampleColumns {
  readonly rows: number;
  readonly tokens_L: Int32Array;
  readonly tokenOffsets_N: Int32Array;
  readonly responseLengths_N: Int32Array;
  /** Response columns of row i lie at [responseOffsets[i], responseOffsets[i+1]). */
  readonly responseOffsets_N: Int32Array;
  readonly lossMask_T: Uint8Array;
  readonly rolloutLogProbs_T: Float32Array;
  readonly rewards_N: Float32Array;
  readonly truncated_N: Uint8Array;
  readonly sampleIndices_N: Int32Array;
  readonly groupIndices_N: Int32Array;
  readonly rolloutIds_N: Int32Array;
  /** Spans of row i lie at [spanOffsets[i], spanOffsets[i+1]); each is (version, from, to, mixed). */
  readonly spanOffsets_N: Int32Array;
  readonly spans: Int32Array;
  readonly instanceIds_N: readonly string[];
}

/** What the driver keeps of a sample: small numbers, no tokens. */
export interface SampleSummary {
  readonly index: number;
  readonly groupIndex: number;
  readonly rolloutId: number;
  readonly instanceId: string;
  readonly status: SampleStatus;
  readonly promptLength: number;
  readonly responseLength: number;
  /** Response tokens that train: the sum of the loss mask. */
  readonly effectiveLength: number;
  readonly reward: number | null;
  readonly rewards: Readonly<Record<string, number>> | null;
  /** Oldest and newest weight version among trained spans; null when no token was generated. */
  readonly weightVersionMin: number | null;
  readonly weightVersionMax: number | null;
  readonly mixed: boolean;
  readonly removeSample: boolean;
  readonly failure: SampleFailure | null;
}
