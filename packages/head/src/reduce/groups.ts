/**
 * Placement groups: planned, prepared on every node, then committed; PENDING → PREPARED → CREATED, RESCHEDULING after a node was lost, REMOVED.
 * Invariants: G1 a bundle counts as held from its plan until its node released it or is gone; G2 nothing is committed before all nodes prepared it and that is
 * durable; G3 replies of an older generation change nothing; G4 a group is released only when no actor runs in it any more.
 */
import { SlimeError } from "@slime/core";
import type { BundlesReply, CreatePlacementGroup } from "@slime/rpc/control";
import { bundlesMax, type ClusterView, formatResources, placeGroup, type Strategy, strategies, sumResources } from "@slime/scheduler";
import { headLimits } from "../limits.js";
import { groupWaits } from "../state/head-state.js";
import { type GroupRecord, jobEnded } from "../state/records.js";
import { endActor } from "./actors.js";
import { groupTitle, nodesOf, placedBundle, plannedBundle } from "./cluster-view.js";
import { wayOut } from "./describe.js";
import { failureBytes, notFound, type Turn } from "./turn.js";

/** Idempotent by id. @throws SlimeError `config.invalid`, `not_found`, `conflict`. */
export function createGroup(turn: Turn, request: CreatePlacementGroup): GroupRecord {
  const known = turn.state.groups.get(request.placementGroupId);
  if (known !== undefined) return known;
  const job = turn.state.jobs.get(request.jobId);
  if (job === undefined) throw notFound("job", request.jobId);
  if (jobEnded(job) || job.ending !== null)
    throw new SlimeError("conflict", `${request.jobId} is ${job.state}: it reserves nothing more`, { kind: "job", id: request.jobId });
  const strategy = strategies.find((name) => name === request.strategy);
  const issues: string[] = [];
  if (strategy === undefined) issues.push(`strategy: ${JSON.stringify(request.strategy)} is none of ${strategies.join(", ")}`);
  if (request.bundles.length === 0 || request.bundles.length > bundlesMax)
    issues.push(`bundles: ${request.bundles.length} of them; 1 to ${bundlesMax} can be reserved`);
  for (const [i, { resources }] of request.bundles.entries()) {
    if (Object.values(resources).every((amount) => amount <= 0)) issues.push(`bundles[${i}]: it asks for nothing; name a resource`);
    if (Object.values(resources).some((amount) => amount < 0)) issues.push(`bundles[${i}]: amounts must not be negative`);
  }
  if (strategy === undefined || issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  const group = turn.putGroup({
    placementGroupId: request.placementGroupId,
    jobId: request.jobId,
    name: request.name,
    order: turn.nextOrder(),
    strategy,
    bundles: request.bundles.map((bundle) => bundle.resources),
    state: "PENDING",
    generation: 0,
    plan: [],
    committed: [],
    waiting: [],
    failure: Buffer.alloc(0),
    createdAtMs: turn.wallMs,
  });
  turn.placeAgain = true;
  return group;
}

/** Plans a group that waits, and prepares it; or says what it waits for; or that it can never be. */
export function placeWaitingGroup(turn: Turn, id: string, view: ClusterView): boolean {
  const group = turn.state.groups.get(id);
  if (group === undefined || !groupWaits(group) || turn.state.groupSteps.has(id)) return false;
  if ((turn.state.retryHeadMs.get(id) ?? 0) > turn.nowMs) return false;
  turn.state.retryHeadMs.delete(id);
  const strategy: Strategy = group.strategy;
  const plan = placeGroup(view, { bundles: group.bundles, strategy, kept: group.plan.map(placedBundle) });
  switch (plan.kind) {
    case "placed": {
      const planned = turn.putGroup({ ...group, generation: group.generation + 1, plan: plan.bundles.map(plannedBundle), waiting: [] });
      prepare(turn, planned);
      return true;
    }
    case "infeasible":
      if (group.generation === 0) {
        fail(turn, group, plan.reasons);
        return false;
      }
      wait(turn, group, plan.reasons);
      return false;
    case "waiting":
      wait(turn, group, plan.reasons);
      return false;
  }
}

function wait(turn: Turn, group: GroupRecord, reasons: readonly string[]): void {
  if (reasons.join("\n") === group.waiting.join("\n")) return;
  turn.putGroup({ ...group, waiting: reasons });
  const { placementGroupId, jobId, name, strategy } = group;
  turn.event("placement_group.pending", { placementGroupId, jobId, name, strategy, waiting: reasons });
}

function fail(turn: Turn, group: GroupRecord, reasons: readonly string[]): void {
  const sum = sumResources(group.bundles);
  const wanted = `${group.strategy} of ${group.bundles.length} bundles, ${formatResources(sum)} in all`;
  const message = `${groupTitle(group)} can never be placed (${wanted}): ${reasons.join("; ")}; ${wayOut(turn.state, sum)}`;
  const failure = new SlimeError("placement.infeasible", message, { wanted, reasons });
  turn.putGroup({ ...group, state: "INFEASIBLE", waiting: reasons, failure: failureBytes(failure) });
  turn.placeAgain = true; // actors that wait for it fail with it
  turn.event("placement_group.infeasible", { placementGroupId: group.placementGroupId, jobId: group.jobId, name: group.name, reasons });
}

/** Asks every node of the plan to reserve; a node that holds an older generation replaces it, and what runs in kept bundles runs on. */
function prepare(turn: Turn, group: GroupRecord): void {
  const nodes = nodesOf(turn.state, group.plan);
  beginStep(turn, group, "prepare", nodes);
  for (const nodeId of nodes) sayPrepare(turn, group, nodeId);
}

/** Tells a node to reserve its bundles of the plan for `reservationTtlMs`; saying it again changes nothing there. */
export function sayPrepare(turn: Turn, group: GroupRecord, nodeId: string): void {
  const { placementGroupId, generation } = group;
  const bundles = group.plan.filter((bundle) => bundle.nodeId === nodeId);
  turn.send(nodeId, { $case: "prepare", value: { placementGroupId, generation, bundles, ttlMs: headLimits.reservationTtlMs } });
}

/** Tells a node to keep what it reserved for this generation, without an end. */
export function sayCommit(turn: Turn, { placementGroupId, generation }: GroupRecord, nodeId: string): void {
  turn.send(nodeId, { $case: "commit", value: { placementGroupId, generation } });
}

function sayRelease(turn: Turn, { placementGroupId, generation }: GroupRecord, nodeId: string): void {
  turn.send(nodeId, { $case: "release", value: { placementGroupId, generation } });
}

function beginStep(turn: Turn, group: GroupRecord, step: "prepare" | "commit" | "release", nodes: readonly string[]): void {
  const deadlineHeadMs = turn.nowMs + headLimits.reservationReplyMs;
  turn.state.groupSteps.set(group.placementGroupId, { step, waitingFor: new Set(nodes), deadlineHeadMs });
}

/** A node's answer to one step (G3). */
export function bundlesReplied(turn: Turn, nodeId: string, reply: BundlesReply): void {
  const group = turn.state.groups.get(reply.placementGroupId);
  const step = turn.state.groupSteps.get(reply.placementGroupId);
  if (
    group === undefined ||
    step === undefined ||
    group.generation !== reply.generation ||
    step.step !== reply.step ||
    !step.waitingFor.has(nodeId)
  )
    return;
  if (reply.failure.length > 0 && step.step !== "release") {
    stepFailed(turn, group, `${nodeId} could not ${step.step} it`);
    return;
  }
  stepDone(turn, group, nodeId);
}

/** One node has done the current step; the last one moves the group on. */
export function stepDone(turn: Turn, group: GroupRecord, nodeId: string): void {
  const step = turn.state.groupSteps.get(group.placementGroupId);
  if (step === undefined || !step.waitingFor.has(nodeId)) return;
  const waitingFor = new Set([...step.waitingFor].filter((id) => id !== nodeId));
  if (waitingFor.size > 0) {
    turn.state.groupSteps.set(group.placementGroupId, { ...step, waitingFor });
    return;
  }
  turn.state.groupSteps.delete(group.placementGroupId);
  switch (step.step) {
    case "prepare": {
      const prepared = turn.putGroup({ ...group, state: "PREPARED" });
      const nodes = nodesOf(turn.state, prepared.plan);
      beginStep(turn, prepared, "commit", nodes);
      for (const id of nodes) sayCommit(turn, prepared, id); // sent once PREPARED is durable (G2)
      return;
    }
    case "commit": {
      turn.putGroup({ ...group, state: "CREATED", committed: group.plan.map((bundle) => bundle.index), waiting: [] });
      turn.state.retries.delete(group.placementGroupId);
      turn.placeAgain = true;
      const { placementGroupId, jobId, name, generation } = group;
      turn.event("placement_group.created", { placementGroupId, jobId, name, generation, bundles: group.bundles.length });
      return;
    }
    case "release":
      turn.putGroup({ ...group, plan: [] });
      turn.placeAgain = true;
      return;
  }
}

/** A step that a node refused or did not answer: what was never committed is given back, and the group is planned anew after a pause. */
export function stepFailed(turn: Turn, group: GroupRecord, reason: string): void {
  const { state } = turn;
  const id = group.placementGroupId;
  state.groupSteps.delete(id);
  const kept = group.plan.filter((bundle) => group.committed.includes(bundle.index));
  for (const nodeId of nodesOf(state, group.plan)) if (!kept.some((bundle) => bundle.nodeId === nodeId)) sayRelease(turn, group, nodeId);
  const retry = state.retries.get(id) ?? 0;
  state.retries.set(id, retry + 1);
  const delayMs = Math.min(headLimits.prepareRetryMsMax, headLimits.prepareRetryFirstMs * 1.5 ** retry);
  state.retryHeadMs.set(id, turn.nowMs + delayMs);
  turn.effect({ kind: "wake", atMs: turn.nowMs + delayMs });
  turn.putGroup({
    ...group,
    state: kept.length > 0 ? "RESCHEDULING" : "PENDING",
    plan: kept,
    waiting: [`${reason}; it is planned again in ${Math.round(delayMs)} ms`],
  });
  turn.placeAgain = true;
}

/** A node is gone: its bundles are lost, the others stay (their actors too), and the group is planned again around them. */
export function groupLostNode(turn: Turn, group: GroupRecord, nodeId: string): void {
  const id = group.placementGroupId;
  if (!group.plan.some((bundle) => bundle.nodeId === nodeId)) return;
  const left = group.plan.filter((bundle) => bundle.nodeId !== nodeId);
  const committed = group.committed.filter((index) => left.some((bundle) => bundle.index === index));
  if (group.state === "REMOVED") {
    turn.putGroup({ ...group, plan: left });
    if (turn.state.groupSteps.has(id)) stepDone(turn, { ...group, plan: left }, nodeId);
    return;
  }
  if (group.state === "PENDING" || group.state === "PREPARED" || turn.state.groupSteps.has(id)) {
    stepFailed(turn, { ...group, plan: left, committed }, `${nodeId} was lost`);
    return;
  }
  turn.putGroup({ ...group, state: "RESCHEDULING", plan: left, committed, waiting: [] });
  turn.placeAgain = true;
  turn.event("placement_group.rescheduling", {
    placementGroupId: id,
    jobId: group.jobId,
    name: group.name,
    generation: group.generation,
    lostNodeId: nodeId,
  });
}

/** Removes a group: its actors end, then its nodes release it. Repeating it changes nothing. */
export function removeGroup(turn: Turn, id: string): void {
  const group = turn.state.groups.get(id);
  if (group === undefined || group.state === "REMOVED") return;
  // A reservation in progress is abandoned: what was sent is released like anything else.
  turn.state.groupSteps.delete(id);
  turn.putGroup({ ...group, state: "REMOVED", waiting: [] });
  const { placementGroupId, jobId, name } = group;
  turn.event("placement_group.removed", { placementGroupId, jobId, name });
  for (const actor of turn.state.actors.where("group", id))
    endActor(turn, actor.actorId, "PLACEMENT_REMOVED", `${groupTitle(group)} was removed`);
  settleRemoval(turn, id);
}

/** G4: releases a removed group once nothing runs in it. */
export function settleRemoval(turn: Turn, id: string): void {
  const group = turn.state.groups.get(id);
  if (group === undefined || group.state !== "REMOVED" || group.plan.length === 0 || turn.state.groupSteps.has(id)) return;
  if (turn.state.actors.count("group", id) > 0) return;
  const nodes = nodesOf(turn.state, group.plan);
  if (nodes.length === 0) {
    turn.putGroup({ ...group, plan: [] });
    turn.placeAgain = true;
    return;
  }
  beginStep(turn, group, "release", nodes);
  for (const nodeId of nodes) sayRelease(turn, group, nodeId);
}
