/** What one life of an engine is told when it starts: where it runs is known only then. */
export interface EngineStart {
  /** GPUs of this process by UUID; empty where they are declared and not there: the engine computes on the CPU. */
  readonly gpuUuids: readonly string[];
  /** Its place among the processes of an engine that spans machines; only rank 0 serves HTTP. */
  readonly node: { readonly rank: number; readonly count: number; readonly distInitAddress: string | null };
}

/** What an engine actor says of itself, anew whenever it changes. */
export interface EngineNews {
  /** Counts what was said in this life, from 1: whoever waits names the last it heard. */
  readonly seq: number;
  /** "loading weights 3/7", "serving". */
  readonly phase: string;
  /** `suspect`: it may hang, so nothing new should reach it; it is not given up yet. */
  readonly health: { readonly kind: "healthy" | "suspect"; readonly reason: string };
}

/** One engine process on a single machine, on its own GPUs. */
export const soloNode: EngineStart["node"] = { rank: 0, count: 1, distInitAddress: null };
