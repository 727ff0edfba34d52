import type { Adopted, Bundles, NodeState } from "@slime/node/machine";
import type { GpuDevice } from "@slime/platform";
import type { SimProcess, SimProcessSpec } from "./sim-process.js";

/** A machine as its daemon sees it: what it has, what is on its disk, what runs there. */
export interface DaemonHome {
  readonly name: string;
  readonly nodeId: string;
  readonly address: string;
  readonly gpus: readonly GpuDevice[];
  readonly resources: Readonly<Record<string, number>>;
  readonly poolSize: number;
  /** Counts boots: a process of an earlier one is dead. */
  readonly boots: number;
  /** Of the daemon; kept on disk. */
  incarnation: number;
  /** Ownership records, by process id. */
  readonly records: Map<string, Adopted>;
  readonly processes: () => readonly SimProcess[];
  readonly processOf: (processId: string) => SimProcess | null;
  readonly isLiving: (processId: string) => boolean;
  readonly nextPid: () => number;
  readonly spawn: (of: SimProcessSpec) => void;
  /** Tells a new daemon of a process of its earlier life that ended meanwhile. */
  readonly reportIfEnded: (processId: string) => void;
  readonly saveBundles: (bundles: Bundles) => void;
  readonly committedBundles: () => Bundles;
  /** The daemon left in order. */
  readonly left: () => void;
  /** The daemon has judged an event. */
  readonly onJudged: (state: NodeState) => void;
}
