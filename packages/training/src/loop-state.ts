import type { RunMode } from "@slime/rl-config";

/** What the reducer knows of the configuration. Lags are in weight versions. */
export interface LoopConfig {
  readonly mode: RunMode;
  /** Rollouts of the whole run. */
  readonly rollouts: number;
  /** Set when the length came from epochs: periodic work also happens at epoch boundaries. */
  readonly rolloutsPerEpoch: number | null;
  readonly saveInterval: number | null;
  readonly evalInterval: number | null;
  readonly evalBeforeTrain: boolean;
  /** Finished rollouts that may wait for the trainer. */
  readonly bufferSize: number;
  /** Rollouts trained between two pushes. */
  readonly pushInterval: number;
  /** Generation of a rollout waits until its lag cannot exceed this; null: it does not wait. */
  readonly waitForLag: number | null;
  /** Trainer losses without a checkpoint between them, after which the run fails. */
  readonly trainerRestartsMax: number;
}

/** One piece of the trainer's lane. It does one at a time, in order. */
export type LaneJob =
  | { readonly kind: "train"; readonly rolloutId: number }
  | { readonly kind: "save"; readonly rolloutId: number }
  | { readonly kind: "push"; readonly version: number }
  /** `rolloutId` is the x-axis: rollouts trained so far. */
  | { readonly kind: "eval"; readonly rolloutId: number };

/** A checkpoint as the loop speaks of it. */
export interface CheckpointMark {
  readonly name: string;
  /** Rollouts in its weights; the next to train has this id. */
  readonly trained: number;
}

export interface LoopFailure {
  readonly code: string;
  readonly message: string;
}

/**
 * All that the loop decides from. Plain data: it is rebuilt from the journal and printed by `slime why`.
 * L1 `trained ≤ waiting… < generated ≤ rollouts`; L2 one generation and one lane job at a time; L3 events of an older era change
 * nothing; L4 versions only rise, over rollbacks too; L5 in sync mode nothing is generated before the lane is empty.
 */
export interface LoopState {
  readonly attempt: number;
  /** Counts rollbacks over the whole run (a new attempt is one): what was begun in an older era is void. */
  readonly era: number;
  readonly phase: "idle" | "starting" | "running" | "finished" | "failed";
  /** Rollouts in the weights; the next to train has this id. */
  readonly trained: number;
  /** The next rollout to generate. */
  readonly generated: number;
  readonly generating: number | null;
  readonly waiting: readonly number[];
  readonly lane: LaneJob | null;
  readonly agenda: readonly LaneJob[];
  /** Committed at the engines; 0: none in this era yet. */
  readonly version: number;
  readonly versionMax: number;
  readonly checkpoint: CheckpointMark | null;
  readonly trainerRestarts: number;
  readonly failure: LoopFailure | null;
}

export const initialState: LoopState = {
  attempt: 0,
  era: 0,
  phase: "idle",
  trained: 0,
  generated: 0,
  generating: null,
  waiting: [],
  lane: null,
  agenda: [],
  version: 0,
  versionMax: 0,
  checkpoint: null,
  trainerRestarts: 0,
  failure: null,
};

/** What happened. Each is journaled before it has an effect. `era` says which life of the run it belongs to. */
export type LoopEvent =
  /** A driver takes the run over. `checkpoint`: the newest complete one found; `versionMax`: the highest version anybody knows of. */
  | { readonly kind: "attempt.started"; readonly checkpoint: CheckpointMark | null; readonly versionMax: number }
  /** Trainer and engines hold what `start` asked for. */
  | { readonly kind: "started"; readonly era: number }
  | { readonly kind: "generated"; readonly era: number; readonly rolloutId: number }
  | { readonly kind: "trained"; readonly era: number; readonly rolloutId: number; readonly step: number }
  | { readonly kind: "saved"; readonly era: number; readonly checkpoint: CheckpointMark }
  | { readonly kind: "pushed"; readonly era: number; readonly version: number }
  | { readonly kind: "evaluated"; readonly era: number; readonly rolloutId: number }
  | { readonly kind: "trainer.lost"; readonly era: number; readonly reason: string }
  | { readonly kind: "failed"; readonly code: string; readonly message: string };

/** What to do now. The shell carries each out once and reports by an event of the same era. */
export type LoopCommand =
  | { readonly kind: "start"; readonly era: number; readonly checkpoint: CheckpointMark | null; readonly reason: string }
  | { readonly kind: "generate"; readonly era: number; readonly rolloutId: number }
  | { readonly kind: "lane"; readonly era: number; readonly job: LaneJob }
  | { readonly kind: "finish" }
  | { readonly kind: "fail"; readonly failure: LoopFailure };

export interface Reduced {
  readonly state: LoopState;
  readonly commands: readonly LoopCommand[];
}
