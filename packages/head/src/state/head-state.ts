import type { Heartbeat } from "@slime/rpc/control";
import { type ActorRecord, type GroupRecord, type JobRecord, jobEnded, type NodeRecord } from "./records.js";
import { Table } from "./table.js";

/** The records of the store, by table. */
export interface Records {
  readonly nodes: NodeRecord;
  readonly actors: ActorRecord;
  readonly groups: GroupRecord;
  readonly jobs: JobRecord;
  readonly kv: Uint8Array;
}
export type TableName = keyof Records;
export const tableNames = ["nodes", "actors", "groups", "jobs", "kv"] as const satisfies readonly TableName[];

/** A node's link while it lasts; rebuilt by every hello, never stored. */
export interface NodeLink {
  readonly link: string | null;
  readonly heardHeadMs: number;
  readonly heartbeat: Heartbeat | null;
}

/** A client's stream. */
export interface Session {
  readonly jobId: string;
  readonly actorId: string;
  /** True for the driver whose life is the job's. */
  readonly interactive: boolean;
}

/** A group's two-phase commit in progress. */
export interface GroupStep {
  readonly step: "prepare" | "commit" | "release";
  readonly waitingFor: ReadonlySet<string>;
  readonly deadlineHeadMs: number;
}

/** Somebody who is answered when a job has ended, or a cluster has stopped. */
export interface Waiter {
  readonly token: number;
  readonly deadlineHeadMs: number;
}

/**
 * All the head knows. Tables are durable; the rest is what connections and clocks say and is rebuilt after a restart.
 * Only the reducer changes it, and what it changed can be undone when it could not be made durable (H2).
 */
export interface HeadState {
  readonly clusterId: string;
  readonly epoch: number;
  /** Where it listens: known once it does. */
  address: string;
  httpAddress: string;
  eventsEndpoint: string;
  readonly startedAtMs: number;
  /** Nobody is LOST before this. */
  readonly graceUntilHeadMs: number;
  readonly nodes: Table<NodeRecord>;
  readonly actors: Table<ActorRecord>;
  readonly groups: Table<GroupRecord>;
  readonly jobs: Table<JobRecord>;
  readonly kv: Table<Uint8Array>;
  readonly links: Map<string, NodeLink>;
  readonly sessions: Map<string, Session>;
  /** Actor or group id → sessions that want to know. */
  readonly watchers: Map<string, Set<string>>;
  readonly groupSteps: Map<string, GroupStep>;
  /** Not before this is a waiting actor or group tried again. */
  readonly retryHeadMs: Map<string, number>;
  readonly retries: Map<string, number>;
  /** Actor id → the link and incarnation that were told to stop: said once each. */
  readonly stopsSaid: Map<string, string>;
  readonly phases: Map<string, { readonly phase: string; readonly waitingFor: string }>;
  /** Interactive jobs without a stream → when they end. */
  readonly clientGraceHeadMs: Map<string, number>;
  readonly jobWaiters: Map<string, Waiter[]>;
  stopping: { readonly token: number; readonly graceMs: number; readonly deadlineHeadMs: number; readonly said: boolean } | null;
  evictionHeld: boolean;
  /** When silence was judged last; a long gap means that the head itself was away. */
  judgedHeadMs: number;
  order: number;
}

/** Where the head listens, for what it tells others. */
export interface HeadIdentity {
  readonly clusterId: string;
  readonly epoch: number;
  readonly address: string;
  readonly httpAddress: string;
  readonly eventsEndpoint: string;
}

export const isWaiting = (actor: ActorRecord): boolean => actor.state !== "DEAD" && actor.place === null;

/** An empty state; the store's records are put into its tables before the first event. */
export function headState(identity: HeadIdentity, times: { readonly startedAtMs: number; readonly graceUntilHeadMs: number }): HeadState {
  return {
    ...identity,
    ...times,
    nodes: new Table<NodeRecord>({ present: (node) => (node.state === "ALIVE" || node.state === "SUSPECT" ? "yes" : "no") }),
    actors: new Table<ActorRecord>({
      life: (actor) => (actor.state === "DEAD" ? "dead" : "live"),
      job: (actor) => actor.spec.jobId,
      node: (actor) => actor.place?.nodeId ?? null,
      group: (actor) => (actor.state === "DEAD" || actor.spec.placementGroupId === "" ? null : actor.spec.placementGroupId),
      waiting: (actor) => (isWaiting(actor) ? "yes" : null),
    }),
    groups: new Table<GroupRecord>({
      life: (group) => (groupHolds(group) ? "live" : "over"),
      job: (group) => group.jobId,
      waiting: (group) => (groupWaits(group) ? "yes" : null),
    }),
    jobs: new Table<JobRecord>({
      life: (job) => (jobEnded(job) ? "ended" : "live"),
      node: (job) => job.nodeId,
      submission: (job) => job.submissionId,
    }),
    kv: new Table<Uint8Array>(),
    links: new Map(),
    sessions: new Map(),
    watchers: new Map(),
    groupSteps: new Map(),
    retryHeadMs: new Map(),
    retries: new Map(),
    stopsSaid: new Map(),
    phases: new Map(),
    clientGraceHeadMs: new Map(),
    jobWaiters: new Map(),
    stopping: null,
    evictionHeld: false,
    judgedHeadMs: 0,
    order: 0,
  };
}

/** Not over: it holds resources, or wants to. */
function groupHolds(group: GroupRecord): boolean {
  return group.state !== "INFEASIBLE" && (group.state !== "REMOVED" || group.plan.length > 0);
}

/** Wants a plan: some of its bundles have none. */
export function groupWaits(group: GroupRecord): boolean {
  return (group.state === "PENDING" || group.state === "RESCHEDULING") && group.plan.length < group.bundles.length;
}
