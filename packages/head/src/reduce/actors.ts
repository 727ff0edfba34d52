/**
 * The actor directory (where an actor runs is decided in actor-placement.ts): one state machine an actor, DEPENDENCIES_UNREADY → PENDING_CREATION → ALIVE ⇄ RESTARTING → DEAD.
 * Invariants: H3 at most one incarnation of an actor is placed at a time; H4 an actor holds its resources from the plan until its incarnation is known to be
 * gone; H5 reports of another incarnation than the current one change nothing; H6 DEAD is final; H7 a constructor's failure is never retried.
 */
import { SlimeError } from "@slime/core";
import type { ActorReport, ActorSpec, Death } from "@slime/rpc/control";
import { headLimits } from "../limits.js";
import { type ActorRecord, jobEnded } from "../state/records.js";
import { notFound, type Turn } from "./turn.js";

/** What is known of a death that no daemon saw. */
export const noDeath = { pid: undefined, exitCode: undefined, signal: undefined, oom: false, stderrTail: [] as string[] };

/** Idempotent by actor id. @throws SlimeError `conflict`, `not_found` or `wire.limit` when it cannot be taken on. */
export function createActor(turn: Turn, spec: ActorSpec): ActorRecord {
  const { state } = turn;
  const known = state.actors.get(spec.actorId);
  if (known !== undefined) return known;
  const job = state.jobs.get(spec.jobId);
  if (job === undefined) throw notFound("job", spec.jobId);
  if (jobEnded(job) || job.ending !== null)
    throw new SlimeError("conflict", `${spec.jobId} is ${job.state}: it starts no more actors`, { kind: "job", id: spec.jobId });
  if (state.stopping !== null) throw new SlimeError("conflict", "the cluster is being stopped", { kind: "cluster", id: state.clusterId });
  if (state.actors.count("life", "live") >= headLimits.actorsMax)
    throw new SlimeError("wire.limit", `the cluster has ${headLimits.actorsMax} live actors`, {
      what: "live actors",
      value: headLimits.actorsMax + 1,
      max: headLimits.actorsMax,
    });
  const actor = turn.putActor({
    actorId: spec.actorId,
    spec,
    order: turn.nextOrder(),
    state: "PENDING_CREATION",
    incarnation: 0,
    place: null,
    pid: 0,
    socket: "",
    restartsHeadMs: [],
    restarts: 0,
    ending: null,
    death: null,
    creationFailure: Buffer.alloc(0),
    waiting: [],
    createdAtMs: turn.wallMs,
    endedAtMs: 0,
  });
  turn.placeAgain = true;
  return actor;
}

/** Ends an actor for good. What runs is told to stop; it is DEAD once it is gone. Repeating it changes nothing. */
export function endActor(turn: Turn, actorId: string, reason: string, message: string, graceMs: number = headLimits.actorGraceMs): void {
  const actor = turn.state.actors.get(actorId);
  if (actor === undefined || actor.state === "DEAD") return;
  if (actor.ending === null) turn.putActor({ ...actor, ending: { reason, message, graceMs } });
  settleEnding(turn, actorId);
}

/** The next step of an actor that shall end: DEAD when nothing of it runs, else its incarnation is told to stop, once a link. */
export function settleEnding(turn: Turn, actorId: string): void {
  const actor = turn.state.actors.get(actorId);
  if (actor === undefined || actor.ending === null || actor.state === "DEAD") return;
  if (actor.place === null)
    actorDies(turn, actor, { reason: actor.ending.reason, message: actor.ending.message, ...noDeath, nodeId: "", atMs: turn.wallMs });
  else sayStop(turn, actor, actor.ending.graceMs, actor.ending.reason);
}

/** Stops the incarnation that runs; whether another follows is decided when it is gone. */
export function stopIncarnation(turn: Turn, actor: ActorRecord, graceMs: number): void {
  if (actor.place !== null) sayStop(turn, actor, graceMs, "KILLED");
}

function sayStop(turn: Turn, actor: ActorRecord, graceMs: number, reason: string): void {
  const nodeId = actor.place?.nodeId ?? "";
  const said = `${turn.state.links.get(nodeId)?.link ?? ""} ${actor.incarnation}`;
  if (turn.state.stopsSaid.get(actor.actorId) === said) return;
  if (turn.send(nodeId, { $case: "stopActor", value: { actorId: actor.actorId, incarnation: actor.incarnation, graceMs, reason } }))
    turn.state.stopsSaid.set(actor.actorId, said);
}

/** A daemon's report on one incarnation (H5). */
export function actorReported(turn: Turn, nodeId: string, report: ActorReport): void {
  const actor = turn.state.actors.get(report.actorId);
  if (actor === undefined || actor.place?.nodeId !== nodeId || actor.incarnation !== report.incarnation || report.state === undefined)
    return;
  switch (report.state.$case) {
    case "starting":
      turn.putActor({ ...actor, pid: report.state.value.pid });
      return;
    case "alive":
      actorAlive(turn, actor, report.state.value, false);
      return;
    case "gone":
      actorGone(
        turn,
        actor,
        report.state.value.death ?? unknownDeath(turn, nodeId, "its daemon did not say how"),
        report.state.value.creationFailure,
      );
      return;
    case "phase": {
      const { phase, waitingFor } = report.state.value;
      turn.state.phases.set(actor.actorId, { phase, waitingFor });
      return;
    }
  }
}

/**
 * An incarnation runs and has its socket; `adopted` when a daemon's hello listed it instead of its report. One that shall end is
 * told to stop now.
 */
export function actorAlive(turn: Turn, actor: ActorRecord, at: { readonly pid: number; readonly socket: string }, adopted: boolean): void {
  if (actor.state === "ALIVE" && actor.pid === at.pid && actor.socket === at.socket) return;
  turn.putActor({ ...actor, state: "ALIVE", pid: at.pid, socket: at.socket, waiting: [] });
  const { className, name, jobId } = actor.spec;
  turn.event("actor.alive", {
    actorId: actor.actorId,
    incarnation: actor.incarnation,
    jobId,
    className,
    name,
    nodeId: actor.place?.nodeId ?? "",
    pid: at.pid,
    adopted,
  });
  settleEnding(turn, actor.actorId);
}

/** An incarnation is gone: another follows within the limits of its restarts, or the actor is DEAD. */
export function actorGone(turn: Turn, actor: ActorRecord, death: Death, creationFailure: Buffer = Buffer.alloc(0)): void {
  const { state } = turn;
  const gone: ActorRecord = { ...actor, place: null, pid: 0, socket: "", death };
  state.phases.delete(actor.actorId);
  state.stopsSaid.delete(actor.actorId);
  turn.placeAgain = true;
  if (actor.ending !== null) {
    const message = `${actor.ending.message}${death.message === "" ? "" : ` (${death.message})`}`;
    actorDies(turn, gone, { ...death, reason: actor.ending.reason, message });
    return;
  }
  if (creationFailure.length > 0) {
    actorDies(turn, gone, { ...death, reason: "CREATION_FAILED" }, creationFailure);
    return;
  }
  const { restartsMax, restartWindowMs, className, name, jobId } = actor.spec;
  const recent = actor.restartsHeadMs.filter((at) => restartWindowMs === 0 || turn.nowMs - at < restartWindowMs);
  if (restartsMax >= 0 && recent.length >= restartsMax) {
    if (restartsMax === 0) {
      actorDies(turn, gone, death);
      return;
    }
    const within = restartWindowMs === 0 ? "" : ` within ${restartWindowMs / 1_000} s`;
    actorDies(turn, gone, {
      ...death,
      reason: "RESTARTS_EXHAUSTED",
      message: `it was restarted ${recent.length} times${within}, the limit; last: ${death.message}`,
    });
    return;
  }
  const delayMs = Math.min(headLimits.restartMsMax, headLimits.restartFirstMs * headLimits.restartFactor ** recent.length);
  turn.putActor({
    ...gone,
    state: "RESTARTING",
    restarts: actor.restarts + 1,
    restartsHeadMs: [...recent, turn.nowMs].slice(-1_000),
    waiting: [`it restarts in ${Math.round(delayMs)} ms`],
  });
  state.retryHeadMs.set(actor.actorId, turn.nowMs + delayMs);
  turn.effect({ kind: "wake", atMs: turn.nowMs + delayMs });
  turn.event("actor.restarting", {
    actorId: actor.actorId,
    incarnation: actor.incarnation,
    jobId,
    className,
    name,
    reason: death.reason,
    message: death.message,
    delayMs,
  });
}

/** The end of an actor (H6): its record stays as DEAD with how it came about, and its resources are free. */
export function actorDies(turn: Turn, actor: ActorRecord, death: Death, creationFailure: Buffer = actor.creationFailure): void {
  turn.putActor({ ...actor, state: "DEAD", place: null, pid: 0, socket: "", death, creationFailure, waiting: [], endedAtMs: turn.wallMs });
  turn.state.retryHeadMs.delete(actor.actorId);
  turn.placeAgain = true;
  const { className, name, jobId } = actor.spec;
  turn.event("actor.dead", {
    actorId: actor.actorId,
    incarnation: actor.incarnation,
    jobId,
    className,
    name,
    reason: death.reason,
    message: death.message,
  });
}

/** Death of an incarnation nobody saw die. */
export function unknownDeath(turn: Turn, nodeId: string, message: string, reason = "WORKER_DIED"): Death {
  return { reason, message, ...noDeath, nodeId, atMs: turn.wallMs };
}
