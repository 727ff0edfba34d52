import { jobOutputKey } from "@slime/rpc";
import { jobEnded } from "../state/records.js";
import { findJob } from "./jobs.js";
import { notFound, type Turn } from "./turn.js";

/** Forgets a job that is over, with its actors and groups. */
export function deleteJob(turn: Turn, jobId: string): boolean {
  const job = findJob(turn, jobId);
  if (job === undefined) throw notFound("job", jobId);
  if (!jobEnded(job)) return false;
  for (const actor of turn.state.actors.where("job", job.jobId)) if (actor.state === "DEAD") turn.remove("actors", actor.actorId);
  for (const group of turn.state.groups.where("job", job.jobId)) turn.remove("groups", group.placementGroupId);
  forgetJob(turn, job.jobId);
  return true;
}

/** Removes a job's own record, and what its driver wrote down for it. */
export function forgetJob(turn: Turn, jobId: string): void {
  turn.remove("jobs", jobId);
  turn.putKv(jobOutputKey(jobId), undefined);
}
