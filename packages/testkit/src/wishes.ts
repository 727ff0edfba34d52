import type { ActorSpec, JobSpec } from "@slime/rpc/control";

/** What users of a simulated cluster ask for, in short words. */
export interface ActorWish {
  readonly name: string;
  readonly job: string;
  /** What it does: see `actorScript`. */
  readonly script?: string;
  readonly resources?: Readonly<Record<string, number>>;
  readonly group?: string;
  readonly bundle?: number;
  readonly restarts?: number;
  readonly restartWindowMs?: number;
  readonly detached?: boolean;
  readonly creationTimeoutMs?: number;
}

export interface GroupWish {
  readonly name: string;
  readonly job: string;
  readonly strategy?: string;
  readonly bundles: readonly Readonly<Record<string, number>>[];
}

export interface JobWish {
  readonly name: string;
  /** What its driver does: see `driverScript`. */
  readonly script?: string;
  readonly resources?: Readonly<Record<string, number>>;
  readonly attempts?: number;
}

const unit = 10_000;
/** Amounts in the control plane's 1/10,000. */
export const units = (resources: Readonly<Record<string, number>>) =>
  Object.fromEntries(Object.entries(resources).map(([name, amount]) => [name, Math.round(amount * unit)]));

/** A job as it is submitted. */
export function jobSpec(wish: JobWish, jobId: string): JobSpec {
  return {
    jobId,
    submissionId: wish.name,
    entrypoint: wish.script ?? "runs",
    env: {},
    cwd: "/",
    metadata: {},
    resources: units(wish.resources ?? { CPU: 1 }),
    attemptsMax: wish.attempts ?? 1,
  };
}

/** An actor as it is created. */
export function actorSpec(
  wish: ActorWish,
  ids: { readonly actorId: string; readonly jobId: string; readonly placementGroupId: string },
): ActorSpec {
  return {
    ...ids,
    className: wish.name,
    host: "node",
    module: "/sim/actor.js",
    exportName: wish.script ?? "steady",
    arguments: Buffer.alloc(0),
    resources: units(wish.resources ?? {}),
    bundleIndex: wish.bundle ?? -1,
    env: {},
    cwd: "",
    gpuVisibility: "assigned",
    concurrency: 1,
    concurrencyGroups: {},
    restartsMax: wish.restarts ?? 0,
    restartWindowMs: wish.restartWindowMs ?? 0,
    lifetime: wish.detached === true ? "detached" : "job",
    name: wish.name,
    pendingCallsMax: 100,
    creationTimeoutMs: wish.creationTimeoutMs ?? 60_000,
    nodeLabels: {},
    python: "",
    nodeId: "",
  };
}
