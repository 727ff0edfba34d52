/**
 * The head's decisions: (state, input, time) → changes and effects. No I/O, no clock, no chance: the same inputs give the same outcome.
 * Invariants: H1 an effect happens only after the changes of its turn are durable; H2 changes that could not be made durable are undone and none of
 * their effects happens; H8 whoever waits is tried again in the turn that frees something.
 */
import { SlimeError } from "@slime/core";
import { headLimits } from "../limits.js";
import type { Outcome } from "../state/effects.js";
import { type HeadState, type Records, tableNames } from "../state/head-state.js";
import type { HeadInput, Times } from "../state/inputs.js";
import { jobEnded } from "../state/records.js";
import type { Table } from "../state/table.js";
import { placeWaitingActor } from "./actor-placement.js";
import { actorReported } from "./actors.js";
import { awaitClient, clientClosed, clientHello, clientRequest, endAbandonedJobs, pushChanges } from "./clients.js";
import { clusterView } from "./cluster-view.js";
import { deleteJob, forgetJob } from "./forget-job.js";
import { bundlesReplied, placeWaitingGroup, settleRemoval, stepFailed } from "./groups.js";
import { jobReported, leftOfJob, placeWaitingJob, settleJob, stopJob, submitJob } from "./jobs.js";
import { nodeHello } from "./node-hello.js";
import { heartbeat, judgeSilence, nodeClosed, nodeGoodbye, nodeHeard, settleStopping, stopNode } from "./nodes.js";
import { Turn } from "./turn.js";

/** Rounds in which what was placed may free or ready something else; more would be a loop of our own making. */
const settleRoundsMax = 100;

/** Decides on one input. The state is changed in place; `undo` takes the changes back. */
export function reduce(state: HeadState, input: HeadInput, times: Times): Outcome {
  const turn = new Turn(state, times);
  decide(turn, input);
  settle(turn);
  pushChanges(turn);
  return turn.outcome();
}

/** H2: takes an outcome's changes back, the last first. */
export function undo(state: HeadState, outcome: Outcome): void {
  for (const { table, id, before } of [...outcome.changes].reverse())
    (state[table] as Table<Records[typeof table]>).put(id, before as never);
}

/** Puts stored records into an empty state and rebuilds what is derived from them. @returns what to do first. */
export function restore(
  state: HeadState,
  records: { readonly [T in keyof Records]: readonly (readonly [string, Records[T]])[] },
  times: Times,
): Outcome {
  for (const name of tableNames) for (const [id, record] of records[name]) (state[name] as Table<unknown>).put(id, record);
  const turn = new Turn(state, times);
  state.judgedHeadMs = times.nowMs;
  for (const { order } of [...state.actors.values(), ...state.groups.values(), ...state.jobs.values()])
    state.order = Math.max(state.order, order);
  for (const node of state.nodes.where("present", "yes")) {
    state.links.set(node.nodeId, { link: null, heardHeadMs: times.nowMs, heartbeat: null });
    turn.putNode({ ...node, state: "SUSPECT", reason: "the head restarted and has not heard of it yet" });
  }
  for (const job of state.jobs.where("life", "live")) if (job.type === "DRIVER" && job.ending === null) awaitClient(turn, job.jobId);
  for (const actor of state.actors.where("waiting", "yes")) state.retryHeadMs.set(actor.actorId, times.nowMs);
  for (const group of state.groups.where("life", "live")) {
    // A two-phase commit that the head died in goes on: each node's hello says how far it is.
    const step =
      group.state === "PREPARED"
        ? "commit"
        : group.plan.length > 0 && group.state !== "CREATED" && group.plan.length === group.bundles.length
          ? "prepare"
          : null;
    if (step === null || group.state === "REMOVED") continue;
    const nodes = new Set(group.plan.map((bundle) => bundle.nodeId));
    state.groupSteps.set(group.placementGroupId, {
      step,
      waitingFor: nodes,
      deadlineHeadMs: times.nowMs + headLimits.restartGraceMs + headLimits.reservationReplyMs,
    });
  }
  return turn.outcome();
}

function decide(turn: Turn, input: HeadInput): void {
  switch (input.kind) {
    case "node.hello":
      nodeHello(turn, input.link, input.hello, input.epoch);
      return;
    case "node.message":
      nodeMessage(turn, input);
      return;
    case "node.closed":
      nodeClosed(turn, input.link, input.nodeId);
      return;
    case "client.hello":
      clientHello(turn, input.session, input.id, input.hello, input.newJobId);
      return;
    case "client.request":
      clientRequest(turn, input.session, input.id, input.request);
      return;
    case "client.closed":
      clientClosed(turn, input.session);
      return;
    case "job.submit":
      answered(turn, input.token, () => submitJob(turn, input.job));
      return;
    case "job.stop":
      stopJob(turn, input);
      return;
    case "job.delete":
      answered(turn, input.token, () => deleteJob(turn, input.jobId));
      return;
    case "node.stop":
      answered(turn, input.token, () => stopNode(turn, input.nodeId, input.graceMs));
      return;
    case "cluster.stop": {
      if (turn.state.stopping !== null) {
        turn.effect({
          kind: "refuse",
          token: input.token,
          error: new SlimeError("conflict", "the cluster is being stopped already", { kind: "cluster", id: turn.state.clusterId }),
        });
        return;
      }
      turn.state.stopping = { token: input.token, graceMs: input.graceMs, deadlineHeadMs: turn.nowMs + input.waitMs, said: false };
      turn.effect({ kind: "wake", atMs: turn.nowMs + input.waitMs });
      return;
    }
    case "tick":
      tick(turn);
      return;
  }
}

function nodeMessage(turn: Turn, { link, nodeId, message }: Extract<HeadInput, { readonly kind: "node.message" }>): void {
  if (!nodeHeard(turn, link, nodeId)) return; // of an older link, or of a node that was given up: its next hello settles it
  switch (message.$case) {
    case "hello":
      return;
    case "heartbeat":
      heartbeat(turn, nodeId, message.value);
      return;
    case "actor":
      actorReported(turn, nodeId, message.value);
      return;
    case "job":
      jobReported(turn, nodeId, message.value);
      return;
    case "bundles":
      bundlesReplied(turn, nodeId, message.value);
      return;
    case "goodbye":
      nodeGoodbye(turn, nodeId, message.value.reason);
      return;
  }
}

/** Answers an administrator with what `work` returns, or with its failure. */
function answered(turn: Turn, token: number, work: () => unknown): void {
  try {
    turn.effect({ kind: "answer", token, value: work() });
  } catch (error) {
    if (!SlimeError.isAny(error)) throw error;
    turn.effect({ kind: "refuse", token, error });
  }
}

function tick(turn: Turn): void {
  const { state, nowMs } = turn;
  judgeSilence(turn);
  endAbandonedJobs(turn);
  for (const at of state.retryHeadMs.values()) if (at <= nowMs) turn.placeAgain = true;
  for (const [id, step] of state.groupSteps) {
    const group = state.groups.get(id);
    if (group === undefined || step.deadlineHeadMs > nowMs) continue;
    if (step.step === "release") {
      // Nobody else may have these GPUs before the node says so; it is asked again.
      state.groupSteps.delete(id);
      settleRemoval(turn, id);
    } else stepFailed(turn, group, `${[...step.waitingFor].join(", ")} did not answer the ${step.step} in time`);
  }
  for (const [jobId, waiters] of state.jobWaiters) {
    const job = state.jobs.get(jobId);
    const late = waiters.filter((waiter) => waiter.deadlineHeadMs <= nowMs);
    if (late.length === 0) continue;
    const what = `the stop of ${jobId}`;
    const left = job === undefined ? [] : leftOfJob(turn, job);
    for (const { token } of late)
      turn.effect({
        kind: "refuse",
        token,
        error: new SlimeError(
          "call.deadline",
          `${what} goes on, but did not finish in time; still there: ${left.join(", ") || "nothing known"}`,
          { what, timeoutMs: 0 },
        ),
      });
    state.jobWaiters.set(
      jobId,
      waiters.filter((waiter) => waiter.deadlineHeadMs > nowMs),
    );
  }
}

/** H8: lets everything that can move on, move on. */
function settle(turn: Turn): void {
  for (let round = 0; round < settleRoundsMax && turn.placeAgain; round++) {
    turn.placeAgain = false;
    for (const group of turn.state.groups.where("life", "live")) if (group.state === "REMOVED") settleRemoval(turn, group.placementGroupId);
    for (const job of turn.state.jobs.where("life", "live")) if (job.ending !== null) settleJob(turn, job.jobId);
    placeWaiting(turn);
  }
  settleClusterStop(turn);
  prune(turn);
}

/** First what lost its node, then in order of creation. The view is made anew after each success. */
function placeWaiting(turn: Turn): void {
  const { state } = turn;
  const groups = [...state.groups.where("waiting", "yes")].sort(
    (a, b) => Number(b.state === "RESCHEDULING") - Number(a.state === "RESCHEDULING") || a.order - b.order,
  );
  const actors = [...state.actors.where("waiting", "yes")].sort((a, b) => a.order - b.order);
  const jobs =
    state.stopping === null
      ? [...state.jobs.where("life", "live")].filter((job) => job.state === "PENDING").sort((a, b) => a.order - b.order)
      : [];
  if (groups.length + actors.length + jobs.length === 0) return;
  let view = clusterView(state);
  for (const { placementGroupId } of groups) if (placeWaitingGroup(turn, placementGroupId, view)) view = clusterView(state);
  for (const { actorId } of actors) if (placeWaitingActor(turn, actorId, view)) view = clusterView(state);
  for (const { jobId } of jobs) if (placeWaitingJob(turn, jobId, view)) view = clusterView(state);
}

function settleClusterStop(turn: Turn): void {
  const { stopping } = turn.state;
  if (stopping === null) return;
  const late = stopping.deadlineHeadMs <= turn.nowMs;
  if (!settleStopping(turn) && !late) return;
  const left = [...turn.state.nodes.where("present", "yes")].map((node) => node.nodeId);
  turn.effect({ kind: "answer", token: stopping.token, value: { left } });
}

/** Keeps the records of what is over within their limits, the oldest go first. */
function prune(turn: Turn): void {
  const { state } = turn;
  const over = <R>(table: Table<R>, index: string, key: string, max: number): readonly R[] =>
    table.count(index, key) > max ? table.where(index, key).slice(0, table.count(index, key) - max) : [];
  for (const actor of over(state.actors, "life", "dead", headLimits.deadActorsMax)) turn.remove("actors", actor.actorId);
  for (const group of over(state.groups, "life", "over", headLimits.removedGroupsMax)) turn.remove("groups", group.placementGroupId);
  for (const job of over(state.jobs, "life", "ended", headLimits.endedJobsMax)) if (jobEnded(job)) forgetJob(turn, job.jobId);
  for (const node of over(state.nodes, "present", "no", headLimits.goneNodesMax)) turn.remove("nodes", node.nodeId);
}
