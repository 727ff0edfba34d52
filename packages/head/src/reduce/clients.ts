/**
 * Client streams: drivers, actor hosts, tools. Invariants: C1 a request before the hello is refused; C2 an interactive driver's job lives as long as its stream,
 * and for a grace after that; C3 who resolved or created an actor or a group hears of every change until its stream ends.
 */
import { SlimeError } from "@slime/core";
import type { ClientHello, ClientUp, KvPut, KvReply } from "@slime/rpc/control";
import { compareNodes } from "@slime/scheduler";
import { controlProtocol, headLimits } from "../limits.js";
import type { HeadState, Session } from "../state/head-state.js";
import { type JobRecord, jobEnded } from "../state/records.js";
import { createActor, endActor, stopIncarnation } from "./actors.js";
import { actorInfo, groupInfo, nodeInfos } from "./describe.js";
import { createGroup, removeGroup } from "./groups.js";
import { endJob, findJob, openDriverJob } from "./jobs.js";
import { notFound, type Turn } from "./turn.js";

type Request = NonNullable<ClientUp["request"]>;

/** A client says who it is. Without a job it gets one of its own (C2). */
export function clientHello(turn: Turn, session: string, id: number, hello: ClientHello, newJobId: string): void {
  const { state } = turn;
  try {
    if (hello.protocol !== controlProtocol)
      throw new SlimeError(
        "peer.incompatible",
        `this head speaks control protocol ${controlProtocol}, the client ${hello.protocol}: install the same version on both`,
        { ours: String(controlProtocol), theirs: String(hello.protocol) },
      );
    if (hello.clusterId !== "" && hello.clusterId !== state.clusterId)
      throw new SlimeError("peer.incompatible", `this is cluster ${state.clusterId}, not ${hello.clusterId}`, {
        ours: state.clusterId,
        theirs: hello.clusterId,
      });
    if (state.sessions.size >= headLimits.sessionsMax)
      throw new SlimeError("wire.limit", `${headLimits.sessionsMax} clients are connected`, {
        what: "client streams",
        value: state.sessions.size + 1,
        max: headLimits.sessionsMax,
      });
    const job = jobOf(turn, hello, newJobId);
    const interactive = job !== null && job.type === "DRIVER" && hello.actorId === "";
    state.sessions.set(session, { jobId: job?.jobId ?? "", actorId: hello.actorId, interactive });
    if (interactive) state.clientGraceHeadMs.delete(job.jobId);
    turn.reply(session, id, {
      $case: "welcome",
      value: {
        clusterId: state.clusterId,
        epoch: state.epoch,
        jobId: job?.jobId ?? "",
        nodeId: nearestNode(state, hello, job),
        httpAddress: state.httpAddress,
        eventsEndpoint: state.eventsEndpoint,
      },
    });
  } catch (error) {
    turn.fail(session, id, error);
    turn.effect({ kind: "client.close", session });
  }
}

function jobOf(turn: Turn, hello: ClientHello, newJobId: string): JobRecord | null {
  if (hello.jobId === "") return hello.actorId === "" ? openDriverJob(turn, newJobId, hello.pid) : null;
  const job = turn.state.jobs.get(hello.jobId);
  if (job === undefined) throw notFound("job", hello.jobId);
  if (jobEnded(job) && hello.actorId === "")
    throw new SlimeError("conflict", `${job.jobId} is over (${job.state}): start another`, { kind: "job", id: job.jobId });
  return job;
}

/** The daemon on the client's machine: as it says, else by boot id, else its job's, else the first. */
function nearestNode(state: HeadState, hello: ClientHello, job: JobRecord | null): string {
  const alive = state.nodes
    .where("present", "yes")
    .filter((node) => node.state === "ALIVE")
    .sort(compareNodes);
  const found =
    alive.find((node) => node.nodeId === hello.nodeId) ??
    alive.find((node) => node.bootId === hello.bootId && node.nodeId === job?.nodeId) ??
    alive.find((node) => node.bootId === hello.bootId) ??
    alive.find((node) => node.nodeId === job?.nodeId) ??
    alive[0];
  return found?.nodeId ?? "";
}

/**
 * Takes one request of a session and replies to it or fails it with the SlimeError it met; other errors are bugs and pass
 * through. A hello must have come first (C1).
 */
export function clientRequest(turn: Turn, sessionId: string, id: number, request: Request): void {
  const session = turn.state.sessions.get(sessionId);
  try {
    if (session === undefined) throw new SlimeError("conflict", "a hello must come first (C1)", { kind: "session", id: sessionId });
    answer(turn, sessionId, session, id, request);
  } catch (error) {
    if (!SlimeError.isAny(error)) throw error;
    turn.fail(sessionId, id, error);
  }
}

function answer(turn: Turn, sessionId: string, session: Session, id: number, request: Request): void {
  const { state } = turn;
  switch (request.$case) {
    case "hello":
      throw new SlimeError("conflict", "the hello was said already", { kind: "session", id: sessionId });
    case "createActor": {
      const { spec } = request.value;
      if (spec === undefined || spec.actorId === "")
        throw new SlimeError("config.invalid", "an actor needs a spec with an id", { issues: ["spec.actorId: it is missing"] });
      const actor = createActor(turn, spec);
      watch(state, sessionId, actor.actorId);
      turn.reply(sessionId, id, { $case: "actor", value: actorInfo(actor) });
      return;
    }
    case "killActor": {
      const { actorId, graceMs, noRestart } = request.value;
      const actor = state.actors.get(actorId);
      if (actor === undefined) throw notFound("actor", actorId);
      if (noRestart) endActor(turn, actorId, "KILLED", "it was killed by request", graceMs);
      else stopIncarnation(turn, actor, graceMs);
      turn.reply(sessionId, id, { $case: "actor", value: actorInfo(state.actors.get(actorId) ?? actor) });
      return;
    }
    case "resolveActor": {
      const actor = state.actors.get(request.value.actorId);
      if (actor === undefined) throw notFound("actor", request.value.actorId);
      watch(state, sessionId, actor.actorId);
      turn.reply(sessionId, id, { $case: "actor", value: actorInfo(actor) });
      return;
    }
    case "createPlacementGroup": {
      const group = createGroup(turn, request.value);
      watch(state, sessionId, group.placementGroupId);
      turn.reply(sessionId, id, { $case: "placementGroup", value: groupInfo(group) });
      return;
    }
    case "resolvePlacementGroup": {
      const group = state.groups.get(request.value.placementGroupId);
      if (group === undefined) throw notFound("placement group", request.value.placementGroupId);
      watch(state, sessionId, group.placementGroupId);
      turn.reply(sessionId, id, { $case: "placementGroup", value: groupInfo(group) });
      return;
    }
    case "removePlacementGroup": {
      const { placementGroupId } = request.value;
      if (state.groups.get(placementGroupId) === undefined) throw notFound("placement group", placementGroupId);
      removeGroup(turn, placementGroupId);
      const group = state.groups.get(placementGroupId);
      if (group !== undefined) turn.reply(sessionId, id, { $case: "placementGroup", value: groupInfo(group) });
      return;
    }
    case "kvPut":
      turn.reply(sessionId, id, { $case: "kv", value: kvPut(turn, request.value) });
      return;
    case "kvGet": {
      const value = state.kv.get(request.value.key);
      turn.reply(sessionId, id, { $case: "kv", value: { found: value !== undefined, value: Buffer.from(value ?? []), keys: [] } });
      return;
    }
    case "kvDelete": {
      const found = state.kv.get(request.value.key) !== undefined;
      if (found) turn.putKv(request.value.key, undefined);
      turn.reply(sessionId, id, { $case: "kv", value: { found, value: Buffer.alloc(0), keys: [] } });
      return;
    }
    case "kvList": {
      const keys = state.kv
        .keys()
        .filter((key) => key.startsWith(request.value.prefix))
        .sort();
      turn.reply(sessionId, id, { $case: "kv", value: { found: keys.length > 0, value: Buffer.alloc(0), keys } });
      return;
    }
    case "listNodes":
      turn.reply(sessionId, id, { $case: "nodes", value: { nodes: nodeInfos(state) } });
      return;
    case "reportPhase": {
      const { jobId, phase, waitingFor } = request.value;
      if (state.jobs.get(jobId) === undefined) throw notFound("job", jobId);
      state.phases.set(jobId, { phase, waitingFor });
      turn.reply(sessionId, id, { $case: "done", value: {} });
      return;
    }
    case "goodbye": {
      const { exitCode } = request.value;
      const job = findJob(turn, session.jobId);
      if (session.interactive && job !== undefined)
        endJob(turn, job, {
          kind: exitCode === 0 ? "SUCCEEDED" : "FAILED",
          message: `its driver ended with exit code ${exitCode}`,
          errorType: "",
        });
      turn.reply(sessionId, id, { $case: "done", value: {} });
      return;
    }
  }
}

function kvPut(turn: Turn, { key, value, ifAbsent }: KvPut): KvReply {
  const { state } = turn;
  const keyBytes = Buffer.byteLength(key);
  if (keyBytes === 0 || keyBytes > headLimits.kvKeyBytesMax)
    throw new SlimeError("wire.limit", `a key has 1 to ${headLimits.kvKeyBytesMax} bytes, this one ${keyBytes}`, {
      what: "key bytes",
      value: keyBytes,
      max: headLimits.kvKeyBytesMax,
    });
  if (value.length > headLimits.kvValueBytesMax)
    throw new SlimeError(
      "wire.limit",
      `a value has at most ${headLimits.kvValueBytesMax} bytes, that of ${key} ${value.length}: put it into the object store`,
      { what: "value bytes", value: value.length, max: headLimits.kvValueBytesMax },
    );
  const known = state.kv.get(key);
  if (known === undefined && state.kv.size >= headLimits.kvEntriesMax)
    throw new SlimeError("wire.limit", `the key-value store holds ${headLimits.kvEntriesMax} entries: delete some`, {
      what: "entries",
      value: state.kv.size + 1,
      max: headLimits.kvEntriesMax,
    });
  if (known === undefined || !ifAbsent) turn.putKv(key, value);
  return { found: known !== undefined, value: Buffer.from(ifAbsent ? (known ?? []) : []), keys: [] };
}

function watch(state: HeadState, session: string, id: string): void {
  const watchers = state.watchers.get(id) ?? new Set();
  state.watchers.set(id, watchers.add(session));
}

/** C3: pushes what changed to those who watch it. */
export function pushChanges(turn: Turn): void {
  const { state } = turn;
  for (const id of turn.changed("actors")) {
    const actor = state.actors.get(id);
    const sessions = state.watchers.get(id);
    if (actor === undefined || sessions === undefined) continue;
    for (const session of sessions) turn.reply(session, 0, { $case: "actor", value: actorInfo(actor) });
  }
  for (const id of turn.changed("groups")) {
    const group = state.groups.get(id);
    const sessions = state.watchers.get(id);
    if (group === undefined || sessions === undefined) continue;
    for (const session of sessions) turn.reply(session, 0, { $case: "placementGroup", value: groupInfo(group) });
  }
}

/** A stream is over. An interactive driver is waited for (C2). */
export function clientClosed(turn: Turn, sessionId: string): void {
  const { state } = turn;
  const session = state.sessions.get(sessionId);
  if (session === undefined) return;
  state.sessions.delete(sessionId);
  for (const [id, sessions] of state.watchers) if (sessions.delete(sessionId) && sessions.size === 0) state.watchers.delete(id);
  const job = state.jobs.get(session.jobId);
  if (
    !session.interactive ||
    job === undefined ||
    jobEnded(job) ||
    [...state.sessions.values()].some((other) => other.interactive && other.jobId === session.jobId)
  )
    return;
  awaitClient(turn, session.jobId);
}

/** Gives the driver of an interactive job `clientGraceMs` to connect (again); `endAbandonedJobs` ends the job after that. */
export function awaitClient(turn: Turn, jobId: string): void {
  const until = turn.nowMs + headLimits.clientGraceMs;
  turn.state.clientGraceHeadMs.set(jobId, until);
  turn.effect({ kind: "wake", atMs: until });
}

/** Ends the jobs of interactive drivers that did not come back in time. */
export function endAbandonedJobs(turn: Turn): void {
  for (const [jobId, until] of turn.state.clientGraceHeadMs) {
    if (until > turn.nowMs) continue;
    turn.state.clientGraceHeadMs.delete(jobId);
    const job = turn.state.jobs.get(jobId);
    if (job !== undefined)
      endJob(turn, job, {
        kind: "FAILED",
        message: `its driver's connection broke and it did not come back within ${headLimits.clientGraceMs / 1_000} s`,
        errorType: "JOB_SUPERVISOR_ACTOR_DIED",
      });
  }
}
