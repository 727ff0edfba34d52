import type { Clock } from "@slime/core";
import type { MemoryTag } from "../engine-state.js";
import type { DoubleScheduler } from "./double-scheduler.js";
import type { DoubleWeights } from "./double-weights.js";

export interface SglangDoubleOptions {
  /** The directory it "loads": names and shapes are taken from there. */
  readonly modelPath: string;
  readonly version?: "0.5.15" | "0.5.17" | "0.5.23";
  readonly contextLength?: number;
  /** As --enable-memory-saver. */
  readonly memorySaver?: boolean;
  /** As --enable-weights-cpu-backup. */
  readonly weightsBackup?: boolean;
  readonly device?: "cuda" | "cpu";
  /** More of /server_info, over what it says by itself. */
  readonly info?: Readonly<Record<string, unknown>>;
  readonly clock?: Clock;
  readonly stepMs?: number;
}

/** What its routes work on. */
export interface DoubleServer {
  readonly version: string;
  /** 0.5.23 does this; older ones do not. */
  readonly newer: boolean;
  readonly options: SglangDoubleOptions;
  readonly clock: Clock;
  readonly contextLength: number;
  readonly weights: DoubleWeights;
  readonly scheduler: DoubleScheduler;
  readonly groups: Set<string>;
  readonly released: Set<MemoryTag>;
  modelPath: string;
  weightVersion: string;
  sessionOpen: boolean;
  /** The scheduler failed an assertion, and the process with it. */
  readonly die: (reason: string) => void;
}
