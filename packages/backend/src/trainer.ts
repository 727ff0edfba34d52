import type { SampleColumns } from "./sample.js";

/** Which weights a forward pass uses. `actor` is what trains; `ref` is frozen. */
export type ModelTag = "actor" | "ref" | "teacher" | "old_actor";

/** One data-parallel rank's rows of a batch, ready for the model. */
export interface RankBatch {
  readonly rolloutId: number;
  readonly columns: SampleColumns;
  /** Normalised reward per row: the advantage before token-level terms. */
  readonly advantages_N: Float32Array;
  /** Sum of loss-mask sums over all samples with the row's rollout id: the per-sample reducer's denominator. */
  readonly rolloutMaskSums_N: Float32Array;
  /** Rows of each micro-batch. Together they hold every row once. */
  readonly microBatches: readonly Int32Array[];
}

/** Per-token values of a batch in response order; `values_T` aligns with `columns.responseOffsets_N`. */
export interface TokenValues {
  readonly values_T: Float32Array;
}

/** The loss, as upstream's flags name it (all defaults are upstream's). */
export interface LossConfig {
  readonly advantageEstimator: "grpo" | "gspo" | "cispo" | "reinforce_plus_plus" | "reinforce_plus_plus_baseline";
  readonly epsClip: number;
  readonly epsClipHigh: number;
  /** Dual clip; null: off. */
  readonly epsClipC: number | null;
  readonly klCoef: number;
  readonly useKlLoss: boolean;
  readonly klLossCoef: number;
  readonly klLossType: "k1" | "k2" | "k3" | "low_var_kl";
  readonly useUnbiasedKl: boolean;
  readonly entropyCoef: number;
  readonly calculatePerTokenLoss: boolean;
  readonly normalizeAdvantages: boolean;
  /** Use the engine's log-probs as the old policy's. */
  readonly useRolloutLogprobs: boolean;
  readonly useTis: boolean;
  readonly tisClip: number;
  readonly tisClipLow: number;
  readonly gamma: number;
  /** Logits are divided by this before the softmax. */
  readonly temperature: number;
}

export interface OptimizerConfig {
  readonly lr: number;
  readonly lrWarmupSteps: number;
  readonly weightDecay: number;
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEps: number;
  /** Largest global gradient norm; 0: no clipping. */
  readonly clipGrad: number;
}

export interface TrainerInit {
  /** Hugging Face directory: config.json, tokenizer, and weights unless `fromScratch`. */
  readonly hfCheckpoint: string;
  /** Weights come from `seed` alone. */
  readonly fromScratch: boolean;
  readonly seed: number;
  /** Checkpoint directory to resume from (one that `save` wrote), or null. */
  readonly load: string | null;
  /** Hugging Face directory of the frozen reference, or null when none is needed. */
  readonly refLoad: string | null;
  readonly loss: LossConfig;
  readonly optimizer: OptimizerConfig;
}

export interface TrainerInfo {
  readonly rank: number;
  readonly worldSize: number;
  readonly dataParallelRank: number;
  readonly dataParallelSize: number;
  readonly pipelineRank: number;
  readonly pipelineSize: number;
  /** Optimizer steps the loaded weights have seen; 0 from scratch. */
  readonly step: number;
  /** How many numbers train. */
  readonly parameters: number;
}

export interface TrainStepRequest {
  readonly batch: RankBatch;
  /** Samples' rollouts in the global batch of this step, over all ranks. */
  readonly globalBatchSize: number;
  /** Trained response tokens of this step over all ranks: the per-token reducer's denominator. */
  readonly globalTokens: number;
  /** Log-probs before this rollout's first step; null: this step's own, detached (one step per rollout). */
  readonly oldLogProbs: TokenValues | null;
  readonly refLogProbs: TokenValues | null;
}

export interface TrainStepResult {
  readonly step: number;
  /** Upstream's names without the `train/` prefix: loss, pg_loss, pg_clipfrac, ppo_kl, grad_norm, … Equal on every rank. */
  readonly metrics: Readonly<Record<string, number>>;
  readonly tokens: number;
}

export interface SaveRequest {
  /** An existing empty directory; ranks write their own files into it. */
  readonly directory: string;
  /** Instances applied to these weights, in order; kept by the trainer as its own record for the audit. */
  readonly rolloutId: number;
}

/** One parameter within exported bytes, under its Hugging Face name: single precision, row-major, `offset` in bytes from the start. */
export interface ExportedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly offset: number;
}

/** What a rank put where the engines can take it from. */
export interface ExportedWeights {
  readonly kind: "shared-memory" | "directory";
  readonly path: string;
  readonly bytes: number;
  /** FNV-1a 64 of all bytes, hex; engines compare what they received. */
  readonly checksum: string;
  readonly tensors: readonly ExportedTensor[];
}

export interface LogProbsRequest {
  readonly tag: ModelTag;
  readonly batch: RankBatch;
  /** Logits are divided by this; default: the loss's. Servers give log-probs of input tokens at 1, so a canary asks at 1. */
  readonly temperature?: number;
}

/** An operation's name for retries: a rank that sees an `opId` again answers with the recorded result (B2). */
export interface Op {
  readonly opId: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * One rank, as its actor hosts it. Calls come one at a time and in the same order on every rank.
 * B1: ranks of a gang answer alike or the op fails. B2: a repeated opId returns the recorded result.
 */
export interface TrainerRank {
  init(op: Op, request: TrainerInit): Promise<TrainerInfo>;
  /** Null on a rank that has none to give (not the last pipeline stage). */
  computeLogProbs(op: Op, request: LogProbsRequest): Promise<TokenValues | null>;
  trainStep(op: Op, request: TrainStepRequest): Promise<TrainStepResult>;
  /** Null on a rank that has nothing to send. */
  exportWeights(op: Op, request: { readonly version: number; readonly directory: string }): Promise<ExportedWeights | null>;
  save(op: Op, request: SaveRequest): Promise<{ readonly files: readonly string[] }>;
  load(op: Op, request: { readonly directory: string }): Promise<TrainerInfo>;
  /** Copies the actor's weights into the reference. */
  updateRef(op: Op): Promise<void>;
  sleep(op: Op): Promise<void>;
  wake(op: Op): Promise<void>;
  close(): Promise<void>;
}

export type ByRank<T> = readonly { readonly rank: number; readonly value: T }[];

/** What one rank gets of a collective call: the same for all, or one request per rank. */
export type PerRank<T> = { readonly kind: "same"; readonly request: T } | { readonly kind: "each"; readonly requests: readonly T[] };

/** The gang port: one call reaches every rank under one opId; one rank's failure fails it and says which (`gang.rank_failed`). */
export interface Trainer {
  readonly worldSize: number;
  readonly init: (op: Op, request: PerRank<TrainerInit>) => Promise<ByRank<TrainerInfo>>;
  readonly computeLogProbs: (op: Op, request: PerRank<LogProbsRequest>) => Promise<ByRank<TokenValues | null>>;
  readonly trainStep: (op: Op, request: PerRank<TrainStepRequest>) => Promise<ByRank<TrainStepResult>>;
  readonly exportWeights: (
    op: Op,
    request: PerRank<{ readonly version: number; readonly directory: string }>,
  ) => Promise<ByRank<ExportedWeights | null>>;
  readonly save: (op: Op, request: PerRank<SaveRequest>) => Promise<ByRank<{ readonly files: readonly string[] }>>;
  readonly load: (op: Op, request: PerRank<{ readonly directory: string }>) => Promise<ByRank<TrainerInfo>>;
  readonly updateRef: (op: Op) => Promise<void>;
  readonly sleep: (op: Op) => Promise<void>;
  readonly wake: (op: Op) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** How data-parallel ranks of one backend add up: sums in rank order, so the result is the same bits on every rank. */
export interface Collective {
  readonly rank: number;
  readonly size: number;
  /** Replaces `values` by the sum over ranks. `key` is equal on all ranks and new for each call. */
  readonly allReduceSum: (key: string, values: Float32Array, signal?: AbortSignal) => Promise<void>;
}
