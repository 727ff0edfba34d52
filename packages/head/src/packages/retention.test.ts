import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { HeadState } from "../state/head-state.js";
import { packageStore } from "./package-store.js";
import { keptByJobs } from "./retention.js";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "slime-packages-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

describe("what is kept of packages", () => {
  const job = (jobId: string, state: string, endedAtMs: number, uri: string | null) => ({
    jobId,
    state,
    endedAtMs,
    order: endedAtMs,
    runtimeEnv: uri === null ? {} : { working_dir: uri },
  });
  const stateOf = (...jobs: readonly ReturnType<typeof job>[]) =>
    ({ jobs: new Map(jobs.map((each) => [each.jobId, each])) }) as unknown as HeadState;

  it("all that runs, the newest of what is over, and the packages they name", () => {
    const state = stateOf(
      job("job_old", "SUCCEEDED", 1, "slime://old.zip"),
      job("job_new", "FAILED", 2, "slime://new.zip"),
      job("job_here", "STOPPED", 3, "/in/place"),
      job("job_runs", "RUNNING", 0, "slime://runs.zip"),
    );
    const kept = keptByJobs(state, 2);
    expect([...kept.jobs].sort()).toEqual(["job_here", "job_new", "job_runs"]);
    expect([...kept.packages].sort()).toEqual(["slime://new.zip", "slime://runs.zip"]);
  });

  it("what nobody names goes once it is old enough; what is young stays", async () => {
    const at = (...path: readonly string[]) => join(directory, ...path);
    await mkdir(at("packages"));
    for (const name of ["slime-kept.zip", "slime-old.zip", "slime-young.zip"]) await writeFile(at("packages", name), name);
    for (const jobId of ["job_kept", "job_old"]) await mkdir(at("jobs", jobId, "working_dir"), { recursive: true });
    const before = new Date(1_000_000);
    for (const path of [at("packages", "slime-kept.zip"), at("packages", "slime-old.zip"), at("jobs", "job_kept"), at("jobs", "job_old")])
      await utimes(path, before, before);
    const removed = await packageStore(directory).sweep(
      { jobs: new Set(["job_kept"]), packages: new Set(["slime://kept.zip"]) },
      2_000_000,
    );
    expect(removed).toEqual([at("packages", "slime-old.zip"), at("jobs", "job_old")]);
    expect([
      existsSync(at("packages", "slime-young.zip")),
      existsSync(at("packages", "slime-kept.zip")),
      existsSync(at("jobs", "job_old")),
    ]).toEqual([true, true, false]);
  });
});
