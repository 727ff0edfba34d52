/**
 * The node registry: who is there, who is silent, who is gone. How a daemon joins is in node-hello.ts.
 * Invariant N4: nobody is LOST within the grace after a head's restart.
 */
import { SlimeError } from "@slime/core";
import { headLimits } from "../limits.js";
import type { NodeLink } from "../state/head-state.js";
import { type NodeRecord, nodePresent } from "../state/records.js";
import { actorGone, endActor, unknownDeath } from "./actors.js";
import { groupLostNode } from "./groups.js";
import { driverEnded, endJob, settleJob } from "./jobs.js";
import { notFound, type Turn } from "./turn.js";

/** One message of a joined daemon; any message tells that it lives. */
export function nodeHeard(turn: Turn, link: string, nodeId: string): boolean {
  const live = turn.state.links.get(nodeId);
  const node = turn.state.nodes.get(nodeId);
  if (live === undefined || live.link !== link || node === undefined) return false;
  turn.state.links.set(nodeId, { ...live, heardHeadMs: turn.nowMs });
  if (node.state === "SUSPECT") {
    turn.putNode({ ...node, state: "ALIVE", reason: "", changedAtMs: turn.wallMs });
    turn.placeAgain = true;
  }
  return node.state === "ALIVE" || node.state === "SUSPECT";
}

/** Keeps a daemon's last numbers for status and acknowledges them, so that the daemon too knows of a dead link. */
export function heartbeat(turn: Turn, nodeId: string, beat: NonNullable<NodeLink["heartbeat"]>): void {
  const live = turn.state.links.get(nodeId);
  if (live === undefined) return;
  turn.state.links.set(nodeId, { ...live, heartbeat: beat });
  turn.send(nodeId, { $case: "ack", value: { sequence: beat.sequence } });
}

/** Its processes are gone and it leaves; nothing to wait for. */
export function nodeGoodbye(turn: Turn, nodeId: string, reason: string): void {
  const node = turn.state.nodes.get(nodeId);
  if (node === undefined) return;
  nodeGone(turn, node, "LEFT", reason === "" ? "it left" : reason);
  const live = turn.state.links.get(nodeId);
  if (live?.link != null) turn.effect({ kind: "node.close", link: live.link });
  turn.event("node.left", { nodeId, reason });
}

/** A link broke: the daemon may have died, so nothing new is placed there until it speaks again. Whether it is LOST only silence tells. */
export function nodeClosed(turn: Turn, link: string, nodeId: string): void {
  const live = turn.state.links.get(nodeId);
  if (live?.link !== link) return;
  turn.state.links.set(nodeId, { ...live, link: null });
  const node = turn.state.nodes.get(nodeId);
  if (node?.state !== "ALIVE") return;
  turn.putNode({ ...node, state: "SUSPECT", reason: "its connection broke", changedAtMs: turn.wallMs });
  turn.event("node.suspect", { nodeId, silentMs: turn.nowMs - live.heardHeadMs });
}

/** Silence: SUSPECT, then LOST, unless so many are silent that the fault is rather ours. */
export function judgeSilence(turn: Turn): void {
  const { state } = turn;
  const present = state.nodes.where("present", "yes");
  const awayMs = turn.nowMs - state.judgedHeadMs;
  state.judgedHeadMs = turn.nowMs;
  // A head that was stopped or starved heard nobody because it did not listen: that time is not theirs.
  if (awayMs > headLimits.headAwayMs)
    for (const [nodeId, live] of state.links) state.links.set(nodeId, { ...live, heardHeadMs: live.heardHeadMs + awayMs });
  const silentMs = (node: NodeRecord) => turn.nowMs - (state.links.get(node.nodeId)?.heardHeadMs ?? turn.nowMs);
  // Heartbeats come at different moments: nodes that fell silent at once pass the limit one after another, and all count from SUSPECT on.
  const silentNow = present.filter((node) => silentMs(node) >= headLimits.nodeSuspectMs);
  const late = silentNow.some((node) => silentMs(node) >= headLimits.nodeSilenceMsMax);
  const held = late && present.length >= headLimits.evictionBrakeNodesMin && silentNow.length * 2 >= present.length;
  if (held && !state.evictionHeld) turn.event("node.eviction_held", { silent: silentNow.length, nodes: present.length });
  state.evictionHeld = held;
  for (const node of present) {
    const silent = silentMs(node);
    if (silent >= headLimits.nodeSilenceMsMax && turn.nowMs >= state.graceUntilHeadMs && !held) {
      turn.event("node.lost", { nodeId: node.nodeId, silentMs: silent });
      nodeGone(turn, node, "LOST", `silent for ${Math.round(silent / 1_000)} s`);
    } else if (silent >= headLimits.nodeSuspectMs && node.state === "ALIVE") {
      turn.putNode({ ...node, state: "SUSPECT", reason: "silent", changedAtMs: turn.wallMs });
      turn.event("node.suspect", { nodeId: node.nodeId, silentMs: silent });
    }
  }
}

/** What ran on a node that is gone, is gone; its bundles are lost. */
function nodeGone(turn: Turn, node: NodeRecord, to: "LOST" | "LEFT", reason: string): void {
  const { nodeId } = node;
  turn.putNode({ ...node, state: to, reason, changedAtMs: turn.wallMs });
  const failure = to === "LOST" ? "NODE_DIED" : "KILLED";
  const message = `its node ${nodeId} ${to === "LOST" ? `was lost: ${reason}` : `left: ${reason}`}`;
  const affected = turn.state.groups.where("life", "live").filter((group) => group.plan.some((bundle) => bundle.nodeId === nodeId));
  for (const actor of turn.state.actors.where("node", nodeId)) actorGone(turn, actor, unknownDeath(turn, nodeId, message, failure));
  for (const group of affected) {
    const now = turn.state.groups.get(group.placementGroupId);
    if (now !== undefined) groupLostNode(turn, now, nodeId);
  }
  for (const job of turn.state.jobs.where("node", nodeId)) driverEnded(turn, job, { message, stopped: false });
  turn.placeAgain = true;
}

/** Tells a daemon to end what runs there and leave. */
export function stopNode(turn: Turn, nodeId: string, graceMs: number): void {
  const node = turn.state.nodes.get(nodeId);
  if (node === undefined) throw notFound("node", nodeId);
  if (!nodePresent(node)) return;
  if (!turn.send(nodeId, { $case: "shutdown", value: { graceMs } }))
    throw new SlimeError("node.lost", `${nodeId} has no connection now: stop it on its own machine with \`slime-worker stop\``, {
      nodeId,
      silentMs: 0,
    });
}

/** Stops jobs and detached actors, then the daemons; called again as each is gone. @returns whether all is gone. */
export function settleStopping(turn: Turn): boolean {
  const { state } = turn;
  if (state.stopping === null) return false;
  for (const job of state.jobs.where("life", "live"))
    endJob(turn, job, { kind: "STOPPED", message: "the cluster was stopped", errorType: "" }, state.stopping.graceMs);
  for (const job of state.jobs.where("life", "live")) settleJob(turn, job.jobId);
  for (const actor of state.actors.where("life", "live"))
    if (actor.spec.lifetime === "detached") endActor(turn, actor.actorId, "KILLED", "the cluster was stopped", state.stopping.graceMs);
  const present = state.nodes.where("present", "yes");
  const linked = present.filter((node) => (state.links.get(node.nodeId)?.link ?? null) !== null);
  if (state.jobs.count("life", "live") + state.actors.count("life", "live") > 0 && linked.length > 0) return false;
  if (!state.stopping.said) {
    state.stopping = { ...state.stopping, said: true };
    for (const node of linked) turn.send(node.nodeId, { $case: "shutdown", value: { graceMs: state.stopping.graceMs } });
  }
  return linked.length === 0;
}
