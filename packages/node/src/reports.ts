import type { HowItDied } from "@slime/platform";
import { toFailure } from "@slime/rpc";
import type {
  ActorReport,
  BundlesReply,
  Death,
  HeldBundles,
  JobReport,
  NodeUp,
  RunningActor,
  RunningJob,
  StartActor,
} from "@slime/rpc/control";
import type { NodeState } from "./node-state.js";

/** A failure as the control plane carries it: JSON bytes. */
export function failureBytes(error: unknown): Buffer {
  return Buffer.from(JSON.stringify(toFailure(error)));
}

/** An actor report as a message to the head. */
export function actorUp(actor: ActorReport): NodeUp {
  return { message: { $case: "actor", value: actor } };
}

/** A job report as a message to the head. */
export function jobUp(job: JobReport): NodeUp {
  return { message: { $case: "job", value: job } };
}

/** The answer to a step of a reservation; a failure of null is "done". */
export function bundlesUp(reply: Omit<BundlesReply, "failure">, failure: unknown): NodeUp {
  return { message: { $case: "bundles", value: { ...reply, failure: failure === null ? Buffer.alloc(0) : failureBytes(failure) } } };
}

type ActorNews = NonNullable<ActorReport["state"]>;

/** News of one life of an actor. */
export function actorReport(start: StartActor, state: ActorNews): ActorReport {
  return { actorId: start.spec?.actorId ?? "", incarnation: start.incarnation, state };
}

export interface DeathContext {
  readonly nodeId: string;
  readonly atMs: number;
  readonly reason: string;
  readonly message: string;
  readonly pid: number | null;
  readonly how: HowItDied | null;
}

/** A death in the control plane's fields. */
export function deathOf({ nodeId, atMs, reason, message, pid, how }: DeathContext): Death {
  return {
    reason,
    message,
    pid: pid ?? undefined,
    exitCode: how?.exitCode ?? undefined,
    signal: how?.signal ?? undefined,
    oom: how?.oom ?? false,
    stderrTail: [...(how?.stderrTail ?? [])],
    nodeId,
    atMs,
  };
}

/** Everything that runs or is held here, for a head that asks anew. */
export interface Inventory {
  readonly actors: RunningActor[];
  readonly jobs: RunningJob[];
  readonly bundles: HeldBundles[];
  readonly endedActors: ActorReport[];
  readonly endedJobs: JobReport[];
}

/** What a hello says of a state. */
export function inventory(state: NodeState): Inventory {
  return {
    actors: [...state.actors.values()].flatMap(({ life }) =>
      life === null ? [] : [{ spec: life.start.spec, incarnation: life.start.incarnation, pid: life.pid, socket: life.socket }],
    ),
    jobs: [...state.jobs.values()].map((job) => ({ spec: job.start.spec, attempt: job.start.attempt, pid: job.pid, logPath: job.logPath })),
    bundles: [...state.bundles].map(([placementGroupId, { generation, bundles, committed }]) => ({
      placementGroupId,
      generation,
      bundles: [...bundles],
      committed,
    })),
    endedActors: [...state.endedActors.values()].map((ended) => ended.report),
    endedJobs: [...state.endedJobs.values()].map((ended) => ended.report),
  };
}
