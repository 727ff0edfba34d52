import type { Resources } from "./resources.js";

/** One GPU of a node and how much of it nobody holds, 0 to 10,000. */
export interface GpuView {
  readonly index: number;
  readonly uuid: string;
  readonly free: number;
}

/** What the scheduler knows of a node. `total` and `free` name GPU too; the GPU's free amount is the sum over `gpus`. */
export interface NodeView {
  readonly nodeId: string;
  /** Advertised address; the first key of rank order. */
  readonly address: string;
  readonly total: Resources;
  readonly free: Resources;
  readonly gpus: readonly GpuView[];
  readonly labels: Readonly<Record<string, string>>;
  /** False for a silent node: it counts for what the cluster could hold, and gets nothing new. */
  readonly schedulable: boolean;
  /** Actors and drivers placed here; spreads those that ask for nothing. */
  readonly load: number;
}

/** Somebody who holds resources, for the sentence that explains a wait. */
export interface Holder {
  /** For people: `placement group train (pg_…)`, `actor engine-0 (actor_…)`. */
  readonly what: string;
  readonly nodeId: string;
  readonly resources: Resources;
}

export interface ClusterView {
  readonly nodes: readonly NodeView[];
  readonly holders: readonly Holder[];
}
