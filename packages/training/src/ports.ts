/**
 * What a run needs from the world. The shell of the loop talks to these and to nothing else; `apps/slime/src/wiring.ts` binds them to
 * actors, tests bind them to fakes on virtual time. No token ever passes through here: parts are opaque references to columns
 * (`SampleColumns`) that rollout workers put into the object store and trainer ranks read out of it.
 *
 * P1: every call has an `opId` or a deadline; a repeated `opId` on the same peer has the effect of one call and answers alike.
 * P2: a promise that rejects means "not known to have happened"; the loop then repeats it, or rolls back to a checkpoint.
 * P3: failures are SlimeErrors; `errorFacts` alone says whether a retry can help.
 */
import type {
  Engine,
  ExportedWeights,
  Fence,
  Op,
  Prompt,
  RowAddress,
  SampleSummary,
  SamplingParams,
  TrainerInfo,
  TrainStepResult,
} from "@slime/backend";
import type { Clock, Logger } from "@slime/core";
import type { MetricSink, ProgressSink, RunStorage, SpanSink } from "./run-records.js";

// ---------------------------------------------------------------- prompts and the ledger

/** One prompt instance and the numbers its samples carry. The same instance keeps its id through retries and rollbacks. */
export interface PromptGroup {
  readonly groupIndex: number;
  /** `<epoch>:<row>`. */
  readonly instanceId: string;
  readonly prompt: Prompt;
  readonly label: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** Where prompts come from, in an order that (data file, seed, cursor) alone decide. */
export interface PromptSource {
  /** Prompts of one epoch. */
  readonly size: number;
  /** The next `count` groups; wraps epochs as often as needed. */
  readonly take: (count: number) => Promise<readonly PromptGroup[]>;
  /** The cursor, as the manifest keeps it: plain JSON. */
  readonly state: () => unknown;
  readonly restore: (state: unknown) => Promise<void>;
}

/** The exactly-once record of prompt instances. Each call is durable before it resolves. */
export interface PromptLedger {
  /** New instances leave the data source and are handed out for `rolloutId`. */
  readonly issue: (instanceIds: readonly string[], rolloutId: number) => Promise<void>;
  /** Instances that came back unfinished are handed out again. */
  readonly lease: (instanceIds: readonly string[], rolloutId: number) => Promise<void>;
  readonly finish: (instanceIds: readonly string[], rolloutId: number) => Promise<void>;
  /** Their samples are in the weights now. `step` is the optimizer step after which that is true. */
  readonly consume: (instanceIds: readonly string[], rolloutId: number, step: number) => Promise<void>;
  readonly drop: (instanceIds: readonly string[], rolloutId: number, reason: string) => Promise<void>;
  /** All of the ledger as the manifest keeps it: plain JSON. */
  readonly snapshot: () => unknown;
  /** Goes back to a snapshot (null: empty), by an appended record that says so; nothing already written is changed. */
  readonly restore: (snapshot: unknown, checkpoint: string | null) => Promise<void>;
}

// ---------------------------------------------------------------- rollouts

/** An opaque, serialisable reference to `SampleColumns` in the object store. */
export type PartRef = unknown;

export interface RolloutRequest {
  readonly rolloutId: number;
  readonly opId: string;
  readonly groups: readonly PromptGroup[];
  readonly samplesPerGroup: number;
  readonly sampling: SamplingParams;
  /** Sample i of a group samples with seed `samplingSeed + i` when not null. */
  readonly samplingSeed: number | null;
  /** Samples are appended here as JSON lines (`SampleRecord`), one file per worker and call; null: not kept. */
  readonly samplesDirectory: string | null;
  readonly onProgress?: (progress: { readonly groupsDone: number; readonly groups: number; readonly responseTokens: number }) => void;
  readonly signal: AbortSignal;
}

/** One group as it came back. `samples[i]` lies at `rows[i]` of the result's parts. */
export type GroupOutcome =
  | {
      readonly kind: "finished";
      readonly instanceId: string;
      readonly groupIndex: number;
      readonly samples: readonly SampleSummary[];
      readonly rows: readonly RowAddress[];
    }
  /** `retryable`: the world failed (an engine or worker died); not: this prompt or its reward did. */
  | {
      readonly kind: "failed";
      readonly instanceId: string;
      readonly groupIndex: number;
      readonly code: string;
      readonly message: string;
      readonly retryable: boolean;
    };

export interface RolloutResult {
  readonly parts: readonly PartRef[];
  /** One per group asked for. */
  readonly groups: readonly GroupOutcome[];
  /** Upstream's `rollout/*` and `perf/*` extras that only a worker can know (no prefix added). */
  readonly metrics: Readonly<Record<string, number>>;
}

export interface EvalRequest {
  readonly dataset: string;
  readonly opId: string;
  /** From the dataset's own order; `groupIndex` counts from 0. */
  readonly prompts: readonly PromptGroup[];
  readonly samplesPerPrompt: number;
  readonly sampling: SamplingParams;
  readonly samplingSeed: number | null;
  readonly samplesDirectory: string | null;
  readonly signal: AbortSignal;
}

export interface EvalResult {
  readonly samples: readonly SampleSummary[];
}

/** The rollout workers of a run as one port: spreads groups over live workers, replaces dead ones. */
export interface Rollouts {
  /** Never rejects for one bad group or one dead worker: those groups come back `failed`. */
  readonly rollout: (request: RolloutRequest) => Promise<RolloutResult>;
  readonly evaluate: (request: EvalRequest) => Promise<EvalResult>;
  /** Cuts everything in flight; calls in progress settle soon after. */
  readonly abort: () => Promise<void>;
  /** Gives the columns' memory back. */
  readonly free: (parts: readonly PartRef[]) => Promise<void>;
}

// ---------------------------------------------------------------- the trainer gang

/** One data-parallel rank's rows of one optimizer step; the rank's actor turns it into a `RankBatch` with `selectRows`. */
export interface RankRows {
  readonly dataParallelRank: number;
  readonly rows: readonly RowAddress[];
  readonly advantages_N: Float32Array;
  readonly rolloutMaskSums_N: Float32Array;
  /** 1: the row keeps its place but trains nothing (its loss mask is zeroed by the rank's actor). */
  readonly masked_N: Uint8Array;
  readonly microBatches: readonly Int32Array[];
}

export interface StepRows {
  readonly ranks: readonly RankRows[];
  readonly globalBatchSize: number;
  readonly globalTokens: number;
}

/** All optimizer steps of one rollout as one collective operation: old and ref log-probs first, then each step. */
export interface TrainRollout {
  readonly rolloutId: number;
  readonly parts: readonly PartRef[];
  readonly steps: readonly StepRows[];
  /** Compute the actor's log-probs before the first step (needed when steps > 1 and the engine's are not used). */
  readonly needOldLogProbs: boolean;
  readonly needRefLogProbs: boolean;
  /** Copy the actor into the reference after the last step. */
  readonly updateRefAfter: boolean;
}

export interface TrainRolloutResult {
  /** One per optimizer step, in order; equal on every rank. */
  readonly steps: readonly TrainStepResult[];
  /** Means over the rollout's tokens or rows that only the trainer knows: log_probs, ref_log_probs, advantages, … (no prefix). */
  readonly rolloutMetrics: Readonly<Record<string, number>>;
  /** Seconds by timer name: log_probs, ref_log_probs, actor_train, data_preprocess. */
  readonly timers: Readonly<Record<string, number>>;
}

/** The gang of trainer ranks as the loop drives it. One rank's failure fails a call with `gang.rank_failed` or what killed it. */
export interface TrainerGang {
  readonly worldSize: number;
  readonly dataParallelSize: number;
  /** (Re)creates the gang if needed and loads `checkpoint` (a directory that `save` wrote), or the initial weights when null. */
  readonly start: (op: Op, request: { readonly checkpoint: string | null }) => Promise<TrainerInfo>;
  readonly train: (op: Op, request: TrainRollout) => Promise<TrainRolloutResult>;
  /** Writes weights where engines can take them from; they stay there until the next export of a higher version. */
  readonly exportWeights: (op: Op, request: { readonly version: number }) => Promise<ExportedWeights>;
  /** Log-probs of tokens 1… of a fixed text under the weights exported last: the canary of a push. */
  readonly probe: (op: Op, request: { readonly tokens: readonly number[]; readonly temperature: number }) => Promise<Float32Array>;
  /** Ranks write weights, optimizer, random states and the ids of all instances they ever applied (`applied-NNNNN.jsonl`) into `directory`. */
  readonly save: (
    op: Op,
    request: { readonly directory: string; readonly rolloutId: number },
  ) => Promise<{ readonly files: readonly string[] }>;
  /** The gang died or is stuck: ends what is left of it. The next `start` makes a new one. */
  readonly reset: (reason: string) => Promise<void>;
}

// ---------------------------------------------------------------- engines, router

/** One engine the router serves and pushes reach. */
export interface EngineHandle {
  /** Stable over restarts. */
  readonly id: string;
  readonly url: string;
  readonly engine: Engine;
}

/** What happens to engines, router and workers without the loop asking. `died` is final for that url; a new life comes with `started`. */
export type FleetEvent =
  | { readonly kind: "engine.died"; readonly engineId: string; readonly url: string; readonly reason: string }
  /** A (re)started engine answers health; it holds old weights and gets no traffic before `WeightSync.catchUp`. */
  | { readonly kind: "engine.started"; readonly engineId: string; readonly url: string }
  /** What an engine that starts or lives says it does now: a sign of life. */
  | { readonly kind: "engine.phase"; readonly engineId: string; readonly phase: string }
  | { readonly kind: "router.died"; readonly reason: string }
  | { readonly kind: "router.started" }
  | { readonly kind: "worker.died"; readonly worker: string; readonly reason: string }
  | { readonly kind: "trainer.died"; readonly reason: string };

export interface EngineFleet {
  /** Engines that live now. */
  readonly list: () => readonly EngineHandle[];
  readonly fence: Fence;
  /** Starts engines and router, resolves when all answer health. */
  readonly start: (op: Op) => Promise<void>;
  /** Ends an engine that failed verification; it is restarted by policy and reports `engine.started`. */
  readonly restart: (engineId: string, reason: string) => Promise<void>;
  readonly subscribe: (listener: (event: FleetEvent) => void) => Disposable;
}

// ---------------------------------------------------------------- the whole

/** All of it. */
export interface RunPorts {
  readonly source: PromptSource;
  readonly ledger: PromptLedger;
  /** Evaluation datasets by name, already rendered. */
  readonly evalSets: readonly {
    readonly name: string;
    readonly prompts: readonly PromptGroup[];
    readonly samplesPerPrompt: number;
    readonly sampling: SamplingParams;
  }[];
  readonly rollouts: Rollouts;
  readonly trainer: TrainerGang;
  readonly fleet: EngineFleet;
  /** Token ids of the canary text, or null: no canary. */
  readonly canaryTokens: readonly number[] | null;
  readonly storage: RunStorage;
  readonly metrics: MetricSink;
  readonly spans: SpanSink;
  readonly progress: ProgressSink;
  readonly clock: Clock;
  readonly log: Logger;
}
