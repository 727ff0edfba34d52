/** What a run leaves behind: metrics, spans, samples, and the durable files that it goes back to. */
import type { Prompt } from "@slime/backend";
import type { LogFile } from "@slime/data";

/** One line of `metrics.jsonl`: upstream's names, flat. */
export interface MetricRecord {
  readonly step: number;
  /** The name of the x-axis: `train/step`, `rollout/step` or `eval/step`. */
  readonly axis: "train/step" | "rollout/step" | "eval/step";
  readonly values: Readonly<Record<string, number>>;
}

export interface MetricSink {
  readonly write: (record: MetricRecord) => void;
}

/** Lines for a person: what the run does now. The CLI draws them on a terminal. */
export interface ProgressSink {
  readonly update: (line: string) => void;
  readonly done: (line: string) => void;
}

/** A stretch of time in which one lane did one thing; overlap is computed from these. Times are the clock's `nowMs`. */
export interface Span {
  readonly lane: "generation" | "training" | "push" | "save" | "eval";
  readonly rolloutId: number;
  readonly startMs: number;
  readonly endMs: number;
}

export interface SpanSink {
  readonly write: (span: Span) => void;
}

export interface CheckpointFile {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** A checkpoint directory that is complete. */
export interface StoredCheckpoint {
  /** `step-0000012`. */
  readonly name: string;
  /** Where the trainer's files and the manifest lie. */
  readonly directory: string;
  /** The manifest's bytes, checked by its own parser. */
  readonly manifest: string;
}

/** The run directory's durable files. What resolves is on disk (fsynced). */
export interface RunStorage {
  readonly openJournal: () => Promise<LogFile>;
  /** Puts a journal that cannot be read out of the way; returns where it is now. */
  readonly setJournalAside: () => Promise<string>;
  /** Complete checkpoints, oldest first. */
  readonly checkpoints: () => Promise<readonly StoredCheckpoint[]>;
  /** An empty directory that becomes the checkpoint `name` at `commit`; leftovers of earlier tries are removed. */
  readonly stage: (name: string) => Promise<{ readonly directory: string }>;
  /** Sizes and digests of what was staged. */
  readonly staged: (name: string) => Promise<readonly CheckpointFile[]>;
  /** Writes the manifest, fsyncs every file and directory, renames: all or nothing. */
  readonly commit: (name: string, manifest: string) => Promise<StoredCheckpoint>;
  readonly remove: (name: string) => Promise<void>;
}

/** One line of `samples/rollout-NNNNNNN/*.jsonl` (or `samples/eval-NNNNNNN/*.jsonl`), written by rollout workers. */
export interface SampleRecord {
  readonly rolloutId: number;
  readonly index: number;
  readonly groupIndex: number;
  readonly instanceId: string;
  readonly prompt: Prompt;
  readonly response: string;
  readonly label: string | null;
  readonly reward: number | null;
  readonly rewards: Readonly<Record<string, number>> | null;
  readonly status: string;
  readonly responseLength: number;
  /** Weight versions of its spans, oldest first. */
  readonly weightVersions: readonly number[];
  readonly failure: string | null;
}
