/**
 * The actor directory: one state machine an actor, DEPENDENCIES_UNREADY → PENDING_CREATION → ALIVE ⇄ RESTARTING → DEAD.
 * Invariants: H3 at most one incarnation of an actor is placed at a time; H4 an actor holds its resources from the plan until its incarnation is known to be
 * gone; H5 reports of another incarnation than the current one change nothing; H6 DEAD is final; H7 a constructor's failure is never retried.
 */
import { SlimeError } from "@slime/core";
import type { ActorReport, ActorSpec, Death } from "@slime/rpc/control";
import { type ClusterView, gpuResource, placeActor, placeInBundle } from "@slime/scheduler";
import { headLimits } from "../limits.js";
import { isWaiting } from "../state/head-state.js";
import { type ActorRecord, jobEnded } from "../state/records.js";
import { actorTitle, groupTitle, placedBundle } from "./cluster-view.js";
import { failureBytes, notFound, type Turn } from "./turn.js";

const noDeath = { pid: undefined, exitCode: undefined, signal: undefined, oom: false, stderrTail: [] as string[] };

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
    die(turn, actor, { reason: actor.ending.reason, message: actor.ending.message, ...noDeath, nodeId: "", atMs: turn.wallMs });
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

/** Finds a place for an actor that has none, and starts its next incarnation there; or says what it waits for. */
export function placeWaitingActor(turn: Turn, actorId: string, view: ClusterView): boolean {
  const actor = turn.state.actors.get(actorId);
  if (actor === undefined || !isWaiting(actor) || actor.ending !== null) return false;
  const retryAt = turn.state.retryHeadMs.get(actorId);
  if (retryAt !== undefined && retryAt > turn.nowMs) return false;
  turn.state.retryHeadMs.delete(actorId);
  const plan = actor.spec.placementGroupId === "" ? placeOutside(actor, view) : placeInGroup(turn, actor);
  switch (plan.kind) {
    case "placed":
      start(turn, actor, plan);
      return true;
    case "waiting":
      wait(turn, actor, plan.reasons, plan.unready);
      return false;
    case "infeasible":
      // What once fitted may fit again when its node is back; what never did fails at once, with the numbers.
      if (actor.incarnation > 0) wait(turn, actor, plan.reasons, false);
      else
        die(turn, actor, creationDeath(turn, `it can never be placed: ${plan.reasons.join("; ")}`), infeasibleFailure(actor, plan.reasons));
      return false;
    case "removed":
      die(turn, actor, { reason: "PLACEMENT_REMOVED", message: plan.message, ...noDeath, nodeId: "", atMs: turn.wallMs });
      return false;
  }
}

type Place =
  | { readonly kind: "placed"; readonly nodeId: string; readonly gpuIndices: readonly number[]; readonly bundle: number | null }
  | { readonly kind: "waiting"; readonly reasons: readonly string[]; readonly unready: boolean }
  | { readonly kind: "infeasible"; readonly reasons: readonly string[] }
  | { readonly kind: "removed"; readonly message: string };

function placeOutside(actor: ActorRecord, view: ClusterView): Place {
  const plan = placeActor(view, {
    resources: actor.spec.resources,
    labels: actor.spec.nodeLabels,
    nodeId: actor.spec.nodeId === "" ? null : actor.spec.nodeId,
  });
  if (plan.kind === "placed") return { ...plan, bundle: null };
  return plan.kind === "waiting" ? { ...plan, unready: false } : plan;
}

function placeInGroup(turn: Turn, actor: ActorRecord): Place {
  const { placementGroupId, bundleIndex, resources } = actor.spec;
  const group = turn.state.groups.get(placementGroupId);
  if (group === undefined || group.state === "REMOVED") return { kind: "removed", message: `${placementGroupId} was removed` };
  if (group.state === "INFEASIBLE")
    return { kind: "infeasible", reasons: [`${groupTitle(group)} is infeasible: ${group.waiting.join("; ")}`] };
  const usable = group.state === "CREATED" || (group.state === "RESCHEDULING" && !turn.state.groupSteps.has(placementGroupId));
  if (!usable)
    return {
      kind: "waiting",
      unready: actor.incarnation === 0,
      reasons: [`${groupTitle(group)} is ${group.state}${group.waiting.length > 0 ? `: ${group.waiting.join("; ")}` : ""}`],
    };
  if (group.state === "RESCHEDULING" && bundleIndex >= 0 && !group.plan.some((bundle) => bundle.index === bundleIndex)) {
    return {
      kind: "waiting",
      unready: false,
      reasons: [`bundle ${bundleIndex} of ${groupTitle(group)} lost its node and is being placed again: ${group.waiting.join("; ")}`],
    };
  }
  const uses = turn.state.actors
    .where("group", placementGroupId)
    .flatMap(({ place, spec }) =>
      place === null || place.bundle === null ? [] : [{ bundle: place.bundle, resources: spec.resources, gpuIndices: place.gpuIndices }],
    );
  const live = group.plan.filter((bundle) => turn.state.nodes.get(bundle.nodeId)?.state === "ALIVE");
  if (live.length === 0) return { kind: "waiting", unready: false, reasons: [`the nodes of ${groupTitle(group)} are silent`] };
  const plan = placeInBundle(live.map(placedBundle), uses, resources, bundleIndex);
  if (plan.kind === "placed")
    return { kind: "placed", nodeId: plan.bundle.nodeId, gpuIndices: plan.gpuIndices, bundle: plan.bundle.bundle };
  if (plan.kind === "infeasible" && live.length === group.bundles.length) return { kind: "infeasible", reasons: plan.reasons };
  return { kind: "waiting", unready: false, reasons: plan.reasons };
}

function start(
  turn: Turn,
  actor: ActorRecord,
  place: { readonly nodeId: string; readonly gpuIndices: readonly number[]; readonly bundle: number | null },
): void {
  const started = turn.putActor({
    ...actor,
    state: actor.incarnation === 0 ? "PENDING_CREATION" : "RESTARTING",
    incarnation: actor.incarnation + 1,
    place: { nodeId: place.nodeId, gpuIndices: place.gpuIndices, bundle: place.bundle },
    waiting: [],
  });
  sayStart(turn, started);
  const { className, name, jobId } = actor.spec;
  turn.event("actor.starting", {
    actorId: actor.actorId,
    incarnation: started.incarnation,
    jobId,
    className,
    name,
    nodeId: place.nodeId,
    gpuIndices: [...place.gpuIndices],
  });
}

/** Starts the placed incarnation; said again to a daemon that does not list it, which changes nothing where it runs. */
export function sayStart(turn: Turn, actor: ActorRecord): void {
  if (actor.place === null) return;
  const { nodeId, gpuIndices, bundle } = actor.place;
  // The job's variables reach its actors wherever they run; an actor's own win.
  const env = { ...turn.state.jobs.get(actor.spec.jobId)?.spec.env, ...actor.spec.env };
  const spec: ActorSpec = { ...actor.spec, env, ...(bundle === null ? {} : { bundleIndex: bundle }) };
  turn.send(nodeId, { $case: "startActor", value: { spec, incarnation: actor.incarnation, gpuIndices: [...gpuIndices] } });
}

function wait(turn: Turn, actor: ActorRecord, reasons: readonly string[], unready: boolean): void {
  const state = actor.incarnation > 0 ? "RESTARTING" : unready ? "DEPENDENCIES_UNREADY" : "PENDING_CREATION";
  if (actor.state === state && reasons.join("\n") === actor.waiting.join("\n")) return;
  turn.putActor({ ...actor, state, waiting: reasons });
  const { className, name, jobId } = actor.spec;
  turn.event("actor.pending", { actorId: actor.actorId, jobId, className, name, waiting: reasons });
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
    die(turn, gone, { ...death, reason: actor.ending.reason, message });
    return;
  }
  if (creationFailure.length > 0) {
    die(turn, gone, { ...death, reason: "CREATION_FAILED" }, creationFailure);
    return;
  }
  const { restartsMax, restartWindowMs, className, name, jobId } = actor.spec;
  const recent = actor.restartsHeadMs.filter((at) => restartWindowMs === 0 || turn.nowMs - at < restartWindowMs);
  if (restartsMax >= 0 && recent.length >= restartsMax) {
    if (restartsMax === 0) {
      die(turn, gone, death);
      return;
    }
    const within = restartWindowMs === 0 ? "" : ` within ${restartWindowMs / 1_000} s`;
    die(turn, gone, {
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

function die(turn: Turn, actor: ActorRecord, death: Death, creationFailure: Buffer = actor.creationFailure): void {
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

function creationDeath(turn: Turn, message: string): Death {
  return { reason: "CREATION_FAILED", message, ...noDeath, nodeId: "", atMs: turn.wallMs };
}

function infeasibleFailure(actor: ActorRecord, reasons: readonly string[]): Buffer {
  const wanted = `${actorTitle(actor)}${actor.spec.resources[gpuResource] === undefined ? "" : " with GPU"}`;
  return failureBytes(
    new SlimeError("placement.infeasible", `${actorTitle(actor)} can never be placed: ${reasons.join("; ")}`, { wanted, reasons }),
  );
}
