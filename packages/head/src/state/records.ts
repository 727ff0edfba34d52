/**
 * What the head keeps: one immutable record for each node, actor, placement group and job. Times named `…AtMs` are wall time, for people;
 * times named `…HeadMs` are the head's own, which goes on where it stopped when the head restarts.
 */

import type { ActorSpec, Death, Gpu, JobSpec, PlannedBundle } from "@slime/rpc/control";
import type { Resources, Strategy } from "@slime/scheduler";

export type NodeState = "ALIVE" | "SUSPECT" | "LOST" | "LEFT";

export interface NodeRecord {
  readonly nodeId: string;
  readonly state: NodeState;
  readonly incarnation: number;
  readonly hostname: string;
  readonly address: string;
  readonly bootId: string;
  readonly pid: number;
  readonly version: string;
  readonly resources: Resources;
  readonly gpus: readonly Gpu[];
  readonly labels: Readonly<Record<string, string>>;
  readonly nodeSocket: string;
  readonly logDir: string;
  readonly joinedAtMs: number;
  readonly changedAtMs: number;
  /** Why it is not ALIVE. */
  readonly reason: string;
}

export type ActorState = "DEPENDENCIES_UNREADY" | "PENDING_CREATION" | "ALIVE" | "RESTARTING" | "DEAD";

/** Where an incarnation is, from the plan until it is known to be gone: exactly then it holds its resources (H4). */
export interface ActorPlace {
  readonly nodeId: string;
  readonly gpuIndices: readonly number[];
  /** The group's bundle; null outside groups. */
  readonly bundle: number | null;
}

export interface ActorRecord {
  readonly actorId: string;
  readonly spec: ActorSpec;
  /** Order of creation, for fairness. */
  readonly order: number;
  readonly state: ActorState;
  readonly incarnation: number;
  readonly place: ActorPlace | null;
  readonly pid: number;
  readonly socket: string;
  /** When it was restarted, in the head's time; what is older than the window is dropped. */
  readonly restartsHeadMs: readonly number[];
  readonly restarts: number;
  /** Set when it shall not run any more; the reason of the death to come. */
  readonly ending: { readonly reason: string; readonly message: string; readonly graceMs: number } | null;
  readonly death: Death | null;
  readonly creationFailure: Buffer;
  readonly waiting: readonly string[];
  readonly createdAtMs: number;
  readonly endedAtMs: number;
}

export type GroupState = "PENDING" | "PREPARED" | "CREATED" | "RESCHEDULING" | "REMOVED" | "INFEASIBLE";

export interface GroupRecord {
  readonly placementGroupId: string;
  readonly jobId: string;
  readonly name: string;
  readonly order: number;
  readonly strategy: Strategy;
  readonly bundles: readonly Resources[];
  readonly state: GroupState;
  /** Raised with every plan; a reply of an older one is stale. */
  readonly generation: number;
  /** In rank order. While PENDING: being prepared. While RESCHEDULING: what was not lost, or all when being prepared. While REMOVED: not yet released. */
  readonly plan: readonly PlannedBundle[];
  /** Bundles of the plan that were committed and not lost since: they keep their place whatever happens to the others. */
  readonly committed: readonly number[];
  readonly waiting: readonly string[];
  readonly failure: Buffer;
  readonly createdAtMs: number;
}

export type JobState = "PENDING" | "RUNNING" | "STOPPING" | "SUCCEEDED" | "FAILED" | "STOPPED";

/** How a job is going to end, or that its driver is going to be started again, once everything of it is gone. */
export interface JobEnding {
  readonly kind: "SUCCEEDED" | "FAILED" | "STOPPED" | "RETRY";
  readonly message: string;
  readonly errorType: string;
}

export interface JobRecord {
  readonly jobId: string;
  readonly submissionId: string;
  /** SUBMISSION: the cluster runs the driver; DRIVER: somebody runs it and is connected. */
  readonly type: "SUBMISSION" | "DRIVER";
  readonly order: number;
  readonly spec: JobSpec;
  /** Of what was asked, to tell a repeat from a conflict. */
  readonly requestHash: string;
  readonly runtimeEnv: Readonly<Record<string, unknown>>;
  readonly state: JobState;
  readonly ending: JobEnding | null;
  readonly message: string;
  readonly errorType: string;
  readonly attempt: number;
  /** Where the driver is, from the plan until it is known to be gone. */
  readonly nodeId: string | null;
  /** Where it was last. */
  readonly lastNodeId: string;
  readonly gpuIndices: readonly number[];
  readonly pid: number;
  readonly logPaths: readonly string[];
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly submittedAtMs: number;
  readonly startedAtMs: number;
  readonly endedAtMs: number;
}

export const jobEnded = (job: JobRecord): boolean => job.state === "SUCCEEDED" || job.state === "FAILED" || job.state === "STOPPED";
export const nodePresent = (node: NodeRecord): boolean => node.state === "ALIVE" || node.state === "SUSPECT";
