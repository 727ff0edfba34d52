import type { HowItDied } from "@slime/platform";
import type { JobReport, StartJob } from "@slime/rpc/control";
import { bounded, type Draft, dropNext } from "./draft.js";
import type { JobState, NodeEvent } from "./node-state.js";
import { jobUp } from "./reports.js";
import { endLife } from "./step-actors.js";

/** The head wants a driver here: starts it, or says what is known of it. */
export function startJob(draft: Draft, start: StartJob): void {
  const jobId = start.spec?.jobId;
  if (jobId === undefined) return;
  const ended = draft.endedJobs.get(`${jobId}#${start.attempt}`);
  if (ended !== undefined) return void draft.effects.push({ kind: "report", up: jobUp(ended.report) });
  const job = draft.jobs.get(jobId);
  if (job !== undefined) {
    if (start.attempt > job.start.attempt) {
      draft.jobs.set(jobId, { ...job, stopping: true, next: start });
      return void draft.effects.push({
        kind: "end",
        processId: job.processId,
        graceMs: 0,
        reason: `attempt ${start.attempt} takes its place (N7)`,
      });
    }
    if (job.start.attempt === start.attempt && job.pid > 0)
      draft.effects.push({
        kind: "report",
        up: jobUp({ jobId, attempt: start.attempt, state: { $case: "running", value: { pid: job.pid, logPath: job.logPath } } }),
      });
    return;
  }
  if (draft.stopping)
    return void draft.effects.push({
      kind: "report",
      up: jobUp(endedReport(jobId, start.attempt, { how: null, message: "the node is stopping", stopped: false })),
    });
  const processId = draft.context.newProcessId();
  draft.jobs.set(jobId, { start, processId, pid: 0, logPath: "", stopping: false, why: "", next: null });
  draft.effects.push({ kind: "launch_driver", processId, start });
}

/** A driver of an earlier life, with its record: ended attempts keep theirs until their job is forgotten, so the newest counts. */
export function adoptJob(draft: Draft, { processId, pid, logPath, start }: Extract<NodeEvent, { readonly kind: "adopted_job" }>): void {
  const jobId = start.spec?.jobId ?? "";
  const known = draft.jobs.get(jobId);
  const newest = known === undefined || known.start.attempt < start.attempt;
  if (newest) draft.jobs.set(jobId, { start, processId, pid, logPath, stopping: false, why: "", next: null });
  const older = newest ? known?.processId : processId;
  if (older !== undefined) draft.effects.push({ kind: "end", processId: older, graceMs: 0, reason: "a newer attempt is here (N7)" });
}

/** Ends a driver within its grace; one that is over is said again. */
export function stopJob(draft: Draft, jobId: string, graceMs: number, why = ""): void {
  const job = draft.jobs.get(jobId);
  if (job !== undefined) {
    draft.jobs.set(jobId, { ...job, stopping: true, why: job.why || why, next: null });
    if (job.next !== null)
      draft.effects.push({
        kind: "report",
        up: jobUp(endedReport(jobId, job.next.attempt, { how: null, message: "stopped before it began", stopped: true })),
      });
    return void draft.effects.push({ kind: "end", processId: job.processId, graceMs, reason: "its job was stopped" });
  }
  const ended = [...draft.endedJobs.values()].filter(({ report }) => report.jobId === jobId);
  for (const { report } of ended) draft.effects.push({ kind: "report", up: jobUp(report) });
  if (ended.length === 0)
    draft.effects.push({
      kind: "report",
      up: jobUp(endedReport(jobId, 0, { how: null, message: "its driver is not on this node", stopped: true })),
    });
}

interface JobEnd {
  readonly how: HowItDied | null;
  readonly message: string;
  readonly stopped: boolean;
}

function endedReport(jobId: string, attempt: number, end: JobEnd): JobReport {
  const value = {
    exitCode: end.how?.exitCode ?? undefined,
    signal: end.how?.signal ?? undefined,
    message: end.message,
    stopped: end.stopped,
  };
  return { jobId, attempt, state: { $case: "ended", value } };
}

/** The driver is gone, with all that came from it. */
export function driverEnded(draft: Draft, jobId: string, job: JobState, how: HowItDied | null, message: string): void {
  draft.jobs.delete(jobId);
  const said = job.why === "" ? message : `${job.why}; its driver: ${message}`;
  const report = endedReport(jobId, job.start.attempt, { how, message: said, stopped: job.stopping });
  draft.endedJobs.set(`${jobId}#${job.start.attempt}`, { processId: job.processId, report });
  bounded(draft, draft.endedJobs);
  draft.effects.push({ kind: "report", up: jobUp(report) });
  if (job.next !== null) startJob(draft, job.next);
}

/** The head knows how everything of this job ended: its records go, its objects are freed, and what still runs for it ends. */
export function forgetJob(draft: Draft, jobId: string): void {
  for (const [actorId, { life, next }] of [...draft.actors]) {
    if (life?.start.spec?.jobId === jobId && life.start.spec.lifetime !== "detached" && life.phase !== "ending")
      endLife(draft, actorId, life, 0, "JOB_ENDED", "its job has ended");
    if (next?.spec?.jobId === jobId && next.spec.lifetime !== "detached") dropNext(draft, actorId);
  }
  for (const [key, ended] of draft.endedActors) {
    if (ended.jobId !== jobId) continue;
    draft.endedActors.delete(key);
    draft.effects.push({ kind: "drop_record", processId: ended.processId });
  }
  for (const [key, ended] of draft.endedJobs) {
    if (ended.report.jobId !== jobId) continue;
    draft.endedJobs.delete(key);
    draft.effects.push({ kind: "drop_record", processId: ended.processId });
  }
  draft.effects.push({ kind: "free_job", jobId });
}
