/**
 * What of uploaded packages and jobs' copies is kept. A copy may hold what its job wrote, so it stays as long as its job is among the newest;
 * the packages themselves stay while a kept job names them.
 */
import type { Clock, Logger } from "@slime/core";
import type { HeadState } from "../state/head-state.js";
import { type JobRecord, jobEnded } from "../state/records.js";
import type { KeptPackages, PackageStore } from "./package-store.js";

export const retentionLimits = {
  /** Copies of working directories of jobs that are over; the oldest go first. */
  endedCopiesMax: 100,
  /** Neither package nor copy goes before this age: an upload comes before the job that names it. */
  ageMsMin: 3_600_000,
  /** Between two looks. */
  sweepMs: 600_000,
} as const;

/** Every job that is not over, and the newest of those that are. */
export function keptByJobs(state: HeadState, endedCopiesMax: number = retentionLimits.endedCopiesMax): KeptPackages {
  const jobs = [...state.jobs.values()];
  const ended = jobs.filter(jobEnded).sort((a, b) => b.endedAtMs - a.endedAtMs || b.order - a.order);
  const kept = [...jobs.filter((job) => !jobEnded(job)), ...ended.slice(0, endedCopiesMax)];
  return { jobs: new Set(kept.map((job) => job.jobId)), packages: new Set(kept.flatMap(packageOf)) };
}

function packageOf(job: JobRecord): readonly string[] {
  const uri = job.runtimeEnv["working_dir"];
  return typeof uri === "string" && uri.includes("://") ? [uri] : [];
}

export interface RetentionParts {
  readonly state: HeadState;
  readonly packages: Pick<PackageStore, "sweep">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Looks now and every `sweepMs`; returns how to stop. A sweep that fails is told and tried again at the next look. */
export function retain({ state, packages, clock, log }: RetentionParts): () => void {
  let timer = clock.after(0, look);
  let stopped = false;
  function look(): void {
    packages
      .sweep(keptByJobs(state), clock.wallMs() - retentionLimits.ageMsMin)
      .then(
        (removed) => {
          if (removed.length > 0) log.info("packages.removed", { removed: removed.length, first: removed[0] ?? "" });
        },
        (error: unknown) => log.warn("packages.not_swept", { error: error instanceof Error ? error.message : String(error) }),
      )
      .finally(() => {
        if (!stopped) timer = clock.after(retentionLimits.sweepMs, look);
      });
  }
  return () => {
    stopped = true;
    timer.cancel();
  };
}
