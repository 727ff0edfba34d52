/**
 * Jobs: PENDING → RUNNING → STOPPING → SUCCEEDED | FAILED | STOPPED.
 * Invariants: J1 a job is over only when its driver is gone, its actors are DEAD and its groups released: then its GPUs are free; J2 one submission id is one job;
 * J3 at most one driver of a job runs; J4 a driver's end is believed from its daemon alone, or when its node is gone.
 */
import { SlimeError } from "@slime/core";
import type { JobReport, JobSpec } from "@slime/rpc/control";
import { type ClusterView, placeActor } from "@slime/scheduler";
import { headLimits } from "../limits.js";
import type { HeadInput, SubmittedJob } from "../state/inputs.js";
import { type JobEnding, type JobRecord, jobEnded } from "../state/records.js";
import { endActor } from "./actors.js";
import { removeGroup } from "./groups.js";
import { notFound, type Turn } from "./turn.js";

type Ended = Extract<NonNullable<JobReport["state"]>, { readonly $case: "ended" }>["value"];

/** The job of a submission id or job id. */
export function findJob(turn: Turn, id: string): JobRecord | undefined {
  return turn.state.jobs.get(id) ?? turn.state.jobs.where("submission", id)[0];
}

/** J2: the same submission again is answered with the job there is; another one under its id is a conflict. */
export function submitJob(turn: Turn, job: SubmittedJob): JobRecord {
  const known = turn.state.jobs.where("submission", job.spec.submissionId)[0];
  if (known !== undefined) {
    if (known.requestHash === job.requestHash) return known;
    throw new SlimeError(
      "conflict",
      `submission id ${job.spec.submissionId} is taken by another job (${known.jobId}, ${known.state}); choose another`,
      { kind: "job", id: job.spec.submissionId },
    );
  }
  if (turn.state.stopping !== null)
    throw new SlimeError("conflict", "the cluster is being stopped", { kind: "cluster", id: turn.state.clusterId });
  const record = turn.putJob(newJob(turn, "SUBMISSION", job));
  turn.event("job.submitted", { jobId: record.jobId, submissionId: record.submissionId, entrypoint: record.spec.entrypoint });
  turn.placeAgain = true;
  return record;
}

/** A job for an interactive driver, which runs already. */
export function openDriverJob(turn: Turn, jobId: string, pid: number): JobRecord {
  const spec: JobSpec = { jobId, submissionId: "", entrypoint: "", env: {}, cwd: "", metadata: {}, resources: {}, attemptsMax: 1 };
  const job = newJob(turn, "DRIVER", { spec, requestHash: "", runtimeEnv: {} });
  return turn.putJob({
    ...job,
    state: "RUNNING",
    attempt: 1,
    pid,
    message: "an interactive driver is connected",
    startedAtMs: turn.wallMs,
  });
}

function newJob(turn: Turn, type: JobRecord["type"], { spec, requestHash, runtimeEnv }: SubmittedJob): JobRecord {
  return {
    jobId: spec.jobId,
    submissionId: spec.submissionId,
    type,
    order: turn.nextOrder(),
    spec,
    requestHash,
    runtimeEnv,
    state: "PENDING",
    ending: null,
    message: "it waits for a node",
    errorType: "",
    attempt: 0,
    nodeId: null,
    lastNodeId: "",
    gpuIndices: [],
    pid: 0,
    logPaths: [],
    exitCode: null,
    signal: null,
    submittedAtMs: turn.wallMs,
    startedAtMs: 0,
    endedAtMs: 0,
  };
}

/** Finds a node for a waiting job's driver and starts it there. */
export function placeWaitingJob(turn: Turn, jobId: string, view: ClusterView): boolean {
  const job = turn.state.jobs.get(jobId);
  if (job === undefined || job.type !== "SUBMISSION" || job.state !== "PENDING" || job.ending !== null || job.nodeId !== null) return false;
  const plan = placeActor(view, { resources: job.spec.resources, labels: {}, nodeId: null });
  switch (plan.kind) {
    case "placed": {
      const placed = turn.putJob({
        ...job,
        nodeId: plan.nodeId,
        lastNodeId: plan.nodeId,
        gpuIndices: plan.gpuIndices,
        attempt: job.attempt + 1,
        message: `its driver starts on ${plan.nodeId}`,
      });
      sayStartJob(turn, placed);
      return true;
    }
    case "infeasible":
      endJob(turn, job, {
        kind: "FAILED",
        message: `its driver can never be placed: ${plan.reasons.join("; ")}`,
        errorType: "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
      });
      return false;
    case "waiting": {
      const message = `it waits for a node: ${plan.reasons.join("; ")}`;
      if (job.message !== message) turn.putJob({ ...job, message });
      return false;
    }
  }
}

/** Tells the job's node to start the driver's current attempt; said again to a daemon that does not list it. Nothing for a job without a node. */
export function sayStartJob(turn: Turn, job: JobRecord): void {
  if (job.nodeId !== null) turn.send(job.nodeId, { $case: "startJob", value: { spec: job.spec, attempt: job.attempt } });
}

/** A daemon's report on a driver. */
export function jobReported(turn: Turn, nodeId: string, report: JobReport): void {
  const job = turn.state.jobs.get(report.jobId);
  if (job === undefined || job.nodeId !== nodeId || job.attempt !== report.attempt || report.state === undefined) return;
  if (report.state.$case === "running") driverRuns(turn, job, report.state.value, false);
  else driverEnded(turn, job, report.state.value);
}

/** A driver's process runs: by its daemon's report, or `adopted` from a hello. A job that is being stopped stays STOPPING. */
export function driverRuns(turn: Turn, job: JobRecord, at: { readonly pid: number; readonly logPath: string }, adopted: boolean): void {
  const logPaths = at.logPath === "" || job.logPaths.includes(at.logPath) ? job.logPaths : [...job.logPaths, at.logPath];
  if (job.pid === at.pid && logPaths === job.logPaths && job.state !== "PENDING") return;
  const first = job.state === "PENDING";
  turn.putJob({
    ...job,
    state: first ? "RUNNING" : job.state,
    pid: at.pid,
    logPaths,
    message: first
      ? job.attempt > 1
        ? `its driver runs, attempt ${job.attempt} of ${job.spec.attemptsMax}`
        : "its driver runs"
      : job.message,
    startedAtMs: job.startedAtMs || turn.wallMs,
  });
  if (first)
    turn.event("job.started", {
      jobId: job.jobId,
      submissionId: job.submissionId,
      attempt: job.attempt,
      nodeId: job.nodeId ?? "",
      pid: at.pid,
      adopted,
    });
}

/** J4: a driver is gone. Whether the job ends, and how, or the driver starts again. */
export function driverEnded(turn: Turn, job: JobRecord, ended: Ended): void {
  const exitCode = ended.exitCode ?? null;
  const signal = ended.signal ?? null;
  const gone = turn.putJob({ ...job, nodeId: null, gpuIndices: [], pid: 0, exitCode, signal });
  turn.placeAgain = true;
  turn.event("job.driver_ended", {
    jobId: job.jobId,
    submissionId: job.submissionId,
    attempt: job.attempt,
    exitCode,
    signal,
    message: ended.message,
  });
  if (job.ending !== null) {
    settleJob(turn, job.jobId);
    return;
  }
  endJob(turn, gone, verdict(job, ended));
}

function verdict(job: JobRecord, ended: Ended): JobEnding {
  if (ended.stopped) return { kind: "STOPPED", message: ended.message || "it was stopped", errorType: "" };
  if (ended.exitCode === 0 && (ended.signal ?? "") === "")
    return { kind: "SUCCEEDED", message: "its driver ended with exit code 0", errorType: "" };
  const how =
    ended.signal !== undefined && ended.signal !== ""
      ? `by ${ended.signal}`
      : ended.exitCode === undefined
        ? "in a way nobody saw"
        : `with exit code ${ended.exitCode}`;
  const message = ended.message === "" ? `its driver ended ${how}` : `its driver ended: ${ended.message}`;
  if (job.attempt < job.spec.attemptsMax)
    return { kind: "RETRY", message: `${message}; attempt ${job.attempt} of ${job.spec.attemptsMax}`, errorType: "" };
  return {
    kind: "FAILED",
    message,
    errorType: ended.exitCode === 127 ? "JOB_ENTRYPOINT_COMMAND_START_ERROR" : "JOB_ENTRYPOINT_COMMAND_ERROR",
  };
}

/** Begins the end of a job: its driver stops, its actors end, its groups are released. The first reason stays, a stop beats a retry. */
export function endJob(turn: Turn, job: JobRecord, ending: JobEnding, graceMs: number = headLimits.jobStopGraceMs): void {
  if (jobEnded(job) || (job.ending !== null && !(job.ending.kind === "RETRY" && ending.kind === "STOPPED"))) return;
  turn.putJob({ ...job, state: ending.kind === "RETRY" ? job.state : "STOPPING", ending, message: ending.message });
  if (ending.kind !== "RETRY") turn.event("job.stopping", { jobId: job.jobId, submissionId: job.submissionId, reason: ending.message });
  if (job.nodeId !== null) turn.send(job.nodeId, { $case: "stopJob", value: { jobId: job.jobId, graceMs } });
  settleJob(turn, job.jobId);
}

/** The next step of a job that ends (J1). Called whenever something of it is gone. */
export function settleJob(turn: Turn, jobId: string): void {
  const job = turn.state.jobs.get(jobId);
  if (job === undefined || job.ending === null || jobEnded(job) || job.nodeId !== null) return;
  // The driver first: while it lives it may still say goodbye to its actors by itself.
  const actors = turn.state.actors.where("job", jobId).filter((actor) => actor.state !== "DEAD" && actor.spec.lifetime !== "detached");
  for (const actor of actors) endActor(turn, actor.actorId, "JOB_ENDED", `its job ended: ${job.ending.message}`);
  const groups = turn.state.groups.where("job", jobId);
  for (const group of groups) removeGroup(turn, group.placementGroupId);
  if (actorsLeft(turn, jobId) > 0 || groupsLeft(turn, jobId) > 0) return;
  const { kind } = job.ending;
  if (kind === "RETRY") {
    turn.putJob({ ...job, ending: null, state: "PENDING", exitCode: null, signal: null });
    turn.placeAgain = true;
    return;
  }
  const over = turn.putJob({
    ...job,
    state: kind,
    ending: null,
    message: job.ending.message,
    errorType: job.ending.errorType,
    endedAtMs: turn.wallMs,
  });
  turn.state.clientGraceHeadMs.delete(jobId);
  turn.state.phases.delete(jobId);
  for (const node of turn.state.nodes.where("present", "yes")) turn.send(node.nodeId, { $case: "forgetJob", value: { jobId } });
  turn.event("job.ended", {
    jobId,
    submissionId: job.submissionId,
    status: kind,
    message: over.message,
    durationMs: Math.max(0, turn.wallMs - (job.startedAtMs || job.submittedAtMs)),
  });
  for (const waiter of turn.state.jobWaiters.get(jobId) ?? []) turn.effect({ kind: "answer", token: waiter.token, value: over });
  turn.state.jobWaiters.delete(jobId);
}

function actorsLeft(turn: Turn, jobId: string): number {
  return turn.state.actors.where("job", jobId).filter((actor) => actor.state !== "DEAD" && actor.spec.lifetime !== "detached").length;
}

function groupsLeft(turn: Turn, jobId: string): number {
  return turn.state.groups
    .where("job", jobId)
    .filter((group) => group.state !== "INFEASIBLE" && (group.state !== "REMOVED" || group.plan.length > 0)).length;
}

/** What of a job is still there, for whoever waits for its end. */
export function leftOfJob(turn: Turn, job: JobRecord): readonly string[] {
  return [
    ...(job.nodeId === null ? [] : [`its driver (pid ${job.pid}) on ${job.nodeId}`]),
    ...turn.state.actors
      .where("job", job.jobId)
      .filter((actor) => actor.place !== null)
      .map((actor) => `actor ${actor.spec.name || actor.spec.className} (pid ${actor.pid}) on ${actor.place?.nodeId ?? ""}`),
    ...turn.state.groups
      .where("job", job.jobId)
      .filter((group) => group.plan.length > 0)
      .map((group) => `placement group ${group.placementGroupId}`),
  ];
}

/** Stops a job and answers when it is over, or says what is left when the wait is. */
export function stopJob(turn: Turn, input: Extract<HeadInput, { readonly kind: "job.stop" }>): void {
  const job = findJob(turn, input.jobId);
  if (job === undefined) {
    turn.effect({ kind: "refuse", token: input.token, error: notFound("job", input.jobId) });
    return;
  }
  if (jobEnded(job)) {
    turn.effect({ kind: "answer", token: input.token, value: null });
    return;
  }
  const waiters = turn.state.jobWaiters.get(job.jobId) ?? [];
  turn.state.jobWaiters.set(job.jobId, [...waiters, { token: input.token, deadlineHeadMs: turn.nowMs + input.waitMs }]);
  turn.effect({ kind: "wake", atMs: turn.nowMs + input.waitMs });
  endJob(turn, job, { kind: "STOPPED", message: input.reason, errorType: "" }, input.graceMs);
}
