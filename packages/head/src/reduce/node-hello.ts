/**
 * A daemon's hello lists all that runs and ran there; both sides are brought into line by it, so no message needs to survive a broken link.
 * Invariants: N1 a node has at most one link, the newest; N2 a lower incarnation of a daemon than the known one is refused; N3 what a daemon runs and the head
 * does not want is stopped, what the head wants and the daemon lacks is started or declared gone.
 */
import { SlimeError } from "@slime/core";
import type { NodeHello } from "@slime/rpc/control";
import { controlProtocol, headLimits } from "../limits.js";
import { jobEnded } from "../state/records.js";
import { sayStart } from "./actor-placement.js";
import { actorAlive, actorGone, actorReported, settleEnding, unknownDeath } from "./actors.js";
import { sayCommit, sayPrepare, settleRemoval, stepDone } from "./groups.js";
import { driverEnded, driverRuns, jobReported, sayStartJob } from "./jobs.js";
import { failureBytes, type Turn } from "./turn.js";

/** A daemon joins, or is back. */
export function nodeHello(turn: Turn, link: string, hello: NodeHello, epoch: number): void {
  const fault = helloFault(turn, hello, epoch);
  if (fault !== null) {
    turn.effect({ kind: "node.send", link, message: { $case: "refused", value: { failure: failureBytes(fault) } } });
    turn.effect({ kind: "node.close", link });
    return;
  }
  const { state } = turn;
  const { nodeId } = hello;
  const before = state.nodes.get(nodeId);
  const old = state.links.get(nodeId)?.link ?? null;
  if (old !== null && old !== link) turn.effect({ kind: "node.close", link: old }); // N1
  state.links.set(nodeId, { link, heardHeadMs: turn.nowMs, heartbeat: null });
  turn.putNode({
    nodeId,
    state: "ALIVE",
    incarnation: hello.incarnation,
    hostname: hello.hostname,
    address: hello.address,
    bootId: hello.bootId,
    pid: hello.pid,
    version: hello.version,
    resources: hello.resources,
    gpus: hello.gpus,
    labels: hello.labels,
    nodeSocket: hello.nodeSocket,
    logDir: hello.logDir,
    joinedAtMs: before?.joinedAtMs ?? turn.wallMs,
    changedAtMs: turn.wallMs,
    reason: "",
  });
  turn.send(nodeId, {
    $case: "welcome",
    value: {
      clusterId: state.clusterId,
      epoch: state.epoch,
      heartbeatMs: headLimits.heartbeatMs,
      nodeSilenceMsMax: headLimits.nodeSilenceMsMax,
      eventsEndpoint: state.eventsEndpoint,
      httpAddress: state.httpAddress,
    },
  });
  turn.event("node.joined", {
    nodeId,
    incarnation: hello.incarnation,
    hostname: hello.hostname,
    address: hello.address,
    gpus: hello.gpus.length,
    adoptedActors: hello.actors.length,
    adoptedJobs: hello.jobs.length,
  });
  reconcileActors(turn, hello);
  reconcileJobs(turn, hello);
  reconcileGroups(turn, hello);
  if (state.stopping?.said === true) turn.send(nodeId, { $case: "shutdown", value: { graceMs: state.stopping.graceMs } });
  turn.placeAgain = true;
}

function helloFault(turn: Turn, hello: NodeHello, epoch: number): SlimeError | null {
  const { state } = turn;
  if (hello.protocol !== controlProtocol)
    return new SlimeError(
      "peer.incompatible",
      `this head speaks control protocol ${controlProtocol}, the daemon ${hello.protocol}: install the same version on both`,
      { ours: String(controlProtocol), theirs: String(hello.protocol) },
    );
  if (hello.clusterId !== "" && hello.clusterId !== state.clusterId)
    return new SlimeError(
      "peer.incompatible",
      `this is cluster ${state.clusterId}, the daemon belongs to ${hello.clusterId}: join with another state directory`,
      { ours: state.clusterId, theirs: hello.clusterId },
    );
  if (epoch > state.epoch)
    return new SlimeError("head.stale", `the daemon has seen head epoch ${epoch}, this head is ${state.epoch}: a newer one took over`, {
      epoch: state.epoch,
      current: epoch,
    });
  const known = state.nodes.get(hello.nodeId);
  if (known !== undefined && hello.incarnation < known.incarnation)
    return new SlimeError(
      "conflict",
      `${hello.nodeId} has joined as incarnation ${known.incarnation} since; ${hello.incarnation} is stale (N2)`,
      { kind: "node", id: hello.nodeId },
    );
  if (state.stopping?.said === true)
    return new SlimeError("conflict", "the cluster is being stopped", { kind: "cluster", id: state.clusterId });
  return null;
}

/** N3 for actors. What ended is believed first, so that a lost report keeps its exit code. */
function reconcileActors(turn: Turn, hello: NodeHello): void {
  const { nodeId } = hello;
  for (const report of hello.endedActors) actorReported(turn, nodeId, report);
  for (const running of hello.actors) {
    const actorId = running.spec?.actorId ?? "";
    const actor = turn.state.actors.get(actorId);
    const ours =
      actor !== undefined && actor.state !== "DEAD" && actor.place?.nodeId === nodeId && actor.incarnation === running.incarnation;
    if (!ours) {
      turn.send(nodeId, {
        $case: "stopActor",
        value: { actorId, incarnation: running.incarnation, graceMs: headLimits.actorGraceMs, reason: "KILLED" },
      });
    } else if (running.socket !== "") {
      actorAlive(turn, actor, running, true);
    }
  }
  for (const actor of turn.state.actors.where("node", nodeId)) {
    const listed = hello.actors.some((running) => running.spec?.actorId === actor.actorId && running.incarnation === actor.incarnation);
    if (listed) settleEnding(turn, actor.actorId);
    else if (actor.state === "ALIVE" || actor.ending !== null)
      actorGone(turn, actor, unknownDeath(turn, nodeId, "its daemon came back without it"));
    else sayStart(turn, actor);
  }
}

/** N3 for drivers. */
function reconcileJobs(turn: Turn, hello: NodeHello): void {
  const { nodeId } = hello;
  for (const report of hello.endedJobs) {
    jobReported(turn, nodeId, report);
    const job = turn.state.jobs.get(report.jobId);
    if (job === undefined || jobEnded(job)) turn.send(nodeId, { $case: "forgetJob", value: { jobId: report.jobId } });
  }
  for (const running of hello.jobs) {
    const jobId = running.spec?.jobId ?? "";
    const job = turn.state.jobs.get(jobId);
    if (job !== undefined && job.nodeId === nodeId && job.attempt === running.attempt) {
      driverRuns(turn, job, running, true);
      if (job.ending !== null) turn.send(nodeId, { $case: "stopJob", value: { jobId, graceMs: headLimits.jobStopGraceMs } });
    } else {
      turn.send(nodeId, { $case: "stopJob", value: { jobId, graceMs: headLimits.jobStopGraceMs } });
    }
  }
  for (const job of turn.state.jobs.where("node", nodeId)) {
    if (hello.jobs.some((running) => running.spec?.jobId === job.jobId && running.attempt === job.attempt)) continue;
    if (job.state === "PENDING" && job.ending === null) sayStartJob(turn, job);
    else driverEnded(turn, job, { message: "its daemon came back without it", stopped: job.ending?.kind === "STOPPED" });
  }
}

/** N3 for reservations: a step in progress goes on with this node, what is committed here is held here, the rest is released. */
function reconcileGroups(turn: Turn, hello: NodeHello): void {
  const { nodeId } = hello;
  const { state } = turn;
  for (const held of hello.bundles) {
    const group = state.groups.get(held.placementGroupId);
    const wanted =
      group?.plan.some((bundle) => bundle.nodeId === nodeId) === true &&
      (group.state !== "REMOVED" || !state.groupSteps.has(held.placementGroupId));
    if (!wanted) turn.send(nodeId, { $case: "release", value: { placementGroupId: held.placementGroupId, generation: held.generation } });
  }
  for (const group of state.groups.where("life", "live")) {
    if (!group.plan.some((bundle) => bundle.nodeId === nodeId)) continue;
    const held = hello.bundles.find(
      (bundles) => bundles.placementGroupId === group.placementGroupId && bundles.generation === group.generation,
    );
    if (group.state === "REMOVED") {
      if (state.groupSteps.has(group.placementGroupId)) {
        turn.send(nodeId, { $case: "release", value: { placementGroupId: group.placementGroupId, generation: group.generation } });
      } else settleRemoval(turn, group.placementGroupId);
      continue;
    }
    const step = state.groupSteps.get(group.placementGroupId);
    const preparing = step?.step === "prepare";
    if (held === undefined) sayPrepare(turn, group, nodeId);
    else if (preparing) stepDone(turn, group, nodeId);
    if (preparing) continue;
    if (held?.committed === true) stepDone(turn, group, nodeId);
    else sayCommit(turn, group, nodeId);
  }
}
