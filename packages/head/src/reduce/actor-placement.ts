/** Where actors that wait for a place run: a node's free resources, or a bundle of their placement group. What follows a placement is in actors.ts. */
import { SlimeError } from "@slime/core";
import type { ActorSpec, Death } from "@slime/rpc/control";
import { type ClusterView, gpuResource, placeActor, placeInBundle } from "@slime/scheduler";
import { isWaiting } from "../state/head-state.js";
import type { ActorRecord } from "../state/records.js";
import { actorDies, noDeath } from "./actors.js";
import { actorTitle, groupTitle, placedBundle } from "./cluster-view.js";
import { wayOut } from "./describe.js";
import { failureBytes, type Turn } from "./turn.js";

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
        actorDies(
          turn,
          actor,
          creationDeath(turn, `it can never be placed: ${plan.reasons.join("; ")}`),
          infeasibleFailure(turn, actor, plan.reasons),
        );
      return false;
    case "removed":
      actorDies(turn, actor, { reason: "PLACEMENT_REMOVED", message: plan.message, ...noDeath, nodeId: "", atMs: turn.wallMs });
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

function creationDeath(turn: Turn, message: string): Death {
  return { reason: "CREATION_FAILED", message, ...noDeath, nodeId: "", atMs: turn.wallMs };
}

function infeasibleFailure(turn: Turn, actor: ActorRecord, reasons: readonly string[]): Buffer {
  const wanted = `${actorTitle(actor)}${actor.spec.resources[gpuResource] === undefined ? "" : " with GPU"}`;
  const message = `${actorTitle(actor)} can never be placed: ${reasons.join("; ")}; ${wayOut(turn.state, actor.spec.resources)}`;
  return failureBytes(new SlimeError("placement.infeasible", message, { wanted, reasons }));
}
