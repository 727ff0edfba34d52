/**
 * Every event there is: name → fields. Names and fields are part of the product: dashboards, tests and people's scripts read them.
 * T1: a published event never changes meaning; fields are added, never renamed. Times are milliseconds unless a name says otherwise.
 */
export const eventTable = {
  "head.started": { clusterId: "text", epoch: "number", address: "text", httpAddress: "text" },
  "head.stopping": { reason: "text" },
  "head.read_only": { reason: "text" },
  "node.joined": {
    nodeId: "text",
    incarnation: "number",
    hostname: "text",
    address: "text",
    gpus: "number",
    adoptedActors: "number",
    adoptedJobs: "number",
  },
  "node.suspect": { nodeId: "text", silentMs: "number" },
  "node.lost": { nodeId: "text", silentMs: "number" },
  "node.left": { nodeId: "text", reason: "text" },
  "node.eviction_held": { silent: "number", nodes: "number" },
  "actor.pending": { actorId: "text", jobId: "text", className: "text", name: "text", waiting: "texts" },
  "actor.starting": {
    actorId: "text",
    incarnation: "number",
    jobId: "text",
    className: "text",
    name: "text",
    nodeId: "text",
    gpuIndices: "numbers",
  },
  "actor.alive": {
    actorId: "text",
    incarnation: "number",
    jobId: "text",
    className: "text",
    name: "text",
    nodeId: "text",
    pid: "number",
    adopted: "flag",
  },
  "actor.restarting": {
    actorId: "text",
    incarnation: "number",
    jobId: "text",
    className: "text",
    name: "text",
    reason: "text",
    message: "text",
    delayMs: "number",
  },
  "actor.dead": { actorId: "text", incarnation: "number", jobId: "text", className: "text", name: "text", reason: "text", message: "text" },
  "placement_group.pending": { placementGroupId: "text", jobId: "text", name: "text", strategy: "text", waiting: "texts" },
  "placement_group.created": { placementGroupId: "text", jobId: "text", name: "text", generation: "number", bundles: "number" },
  "placement_group.rescheduling": { placementGroupId: "text", jobId: "text", name: "text", generation: "number", lostNodeId: "text" },
  "placement_group.infeasible": { placementGroupId: "text", jobId: "text", name: "text", reasons: "texts" },
  "placement_group.removed": { placementGroupId: "text", jobId: "text", name: "text" },
  "job.submitted": { jobId: "text", submissionId: "text", entrypoint: "text" },
  "job.started": { jobId: "text", submissionId: "text", attempt: "number", nodeId: "text", pid: "number", adopted: "flag" },
  "job.driver_ended": { jobId: "text", submissionId: "text", attempt: "number", exitCode: "number?", signal: "text?", message: "text" },
  "job.stopping": { jobId: "text", submissionId: "text", reason: "text" },
  "job.ended": { jobId: "text", submissionId: "text", status: "text", message: "text", durationMs: "number" },
  "process.started": { processId: "text", nodeId: "text", pid: "number", kind: "text" },
  "process.adopted": { processId: "text", nodeId: "text", pid: "number", kind: "text" },
  "process.exited": { processId: "text", nodeId: "text", pid: "number", exitCode: "number?", signal: "text?", oom: "flag" },
  "run.started": { runId: "text", jobId: "text?", command: "text", runDir: "text" },
  "run.resumed": { runId: "text", jobId: "text?", rolloutId: "number", weightVersion: "number" },
  "run.ended": { runId: "text", jobId: "text?", outcome: "text", message: "text" },
  "rollout.started": { runId: "text", rolloutId: "number", prompts: "number" },
  "rollout.finished": { runId: "text", rolloutId: "number", samples: "number", tokens: "number", failed: "number", durationMs: "number" },
  "train.step": { runId: "text", rolloutId: "number", step: "number", samples: "number", tokens: "number", durationMs: "number" },
  "weights.push_started": { runId: "text", version: "number", engines: "number" },
  "weights.pushed": { runId: "text", version: "number", engines: "number", durationMs: "number" },
  "weights.push_failed": { runId: "text", version: "number", phase: "text", message: "text" },
  "checkpoint.saved": { runId: "text", step: "number", path: "text", durationMs: "number" },
  "eval.finished": { runId: "text", rolloutId: "number", dataset: "text", samples: "number", reward: "number" },
  "engine.joined": { runId: "text", engine: "text", url: "text", weightVersion: "number" },
  "engine.left": { runId: "text", engine: "text", reason: "text" },
  "events.dropped": { count: "number" },
} as const satisfies Readonly<Record<string, Readonly<Record<string, FieldKind>>>>;

/** What a field may hold; a question mark means null is a value of it. Absent is no value. */
export type FieldKind = "text" | "text?" | "texts" | "number" | "number?" | "numbers" | "flag";

interface FieldTypes {
  readonly text: string;
  readonly "text?": string | null;
  readonly texts: readonly string[];
  readonly number: number;
  readonly "number?": number | null;
  readonly numbers: readonly number[];
  readonly flag: boolean;
}

export type EventName = keyof typeof eventTable;
/** The fields of one event. */
export type EventFields<N extends EventName> = {
  readonly [F in keyof (typeof eventTable)[N]]: (typeof eventTable)[N][F] extends FieldKind ? FieldTypes[(typeof eventTable)[N][F]] : never;
};

/** Says an event: what the head, the daemons and runs are handed. */
export interface EventSink {
  readonly publish: <N extends EventName>(name: N, fields: EventFields<N>) => void;
}

const checks: { readonly [K in FieldKind]: (value: unknown) => boolean } = {
  text: (value) => typeof value === "string",
  "text?": (value) => value === null || typeof value === "string",
  texts: (value) => Array.isArray(value) && value.every((item) => typeof item === "string"),
  number: (value) => typeof value === "number" && Number.isFinite(value),
  "number?": (value) => value === null || (typeof value === "number" && Number.isFinite(value)),
  numbers: (value) => Array.isArray(value) && value.every((item) => typeof item === "number" && Number.isFinite(item)),
  flag: (value) => typeof value === "boolean",
};

/** What is wrong with fields that came from outside, or null. Fields of a newer peer are let through (T1). */
export function eventFault(name: string, fields: Readonly<Record<string, unknown>>): string | null {
  if (!Object.hasOwn(eventTable, name)) return null;
  for (const [field, kind] of Object.entries(eventTable[name as EventName]) as readonly (readonly [string, FieldKind])[]) {
    if (!checks[kind](fields[field])) return `${name}.${field} must be ${kind}`;
  }
  return null;
}
