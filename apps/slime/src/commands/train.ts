import { writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { invariant, systemClock, systemRandom } from "@slime/core";
import { detectPlatform } from "@slime/platform";
import type { RunMode } from "@slime/rl-config";
import { init } from "@slime/runtime";
import { openRun, type RunOwner, runLoop } from "@slime/training";
import type { Command } from "commander";
import { driverLog } from "../driver-log.js";
import { openRunData } from "../run-data.js";
import { readRunFlags, runFlagsCommand } from "../run-flags.js";
import { checkRunReward } from "../run-reward.js";
import { stopOnSignals } from "../stop-on-signals.js";
import { summaryLines } from "../summary-lines.js";
import { terminalProgress } from "../terminal-progress.js";
import { createRun } from "../wiring.js";

/** Adds `slime train` and `slime train-async`. */
export function register(program: Command): void {
  runFlagsCommand(program, "train", "train: generate, train, push weights, in order (inside a job, or against a cluster that runs)").action(
    (words: string[]) => train("sync", words),
  );
  runFlagsCommand(program, "train-async", "train while generating: rollouts run ahead of training through a bounded buffer").action(
    (words: string[]) => train("async", words),
  );
}

/** Where runs lie unless `--run-dir` says otherwise. */
export const outputsDirectory = "outputs";

/**
 * Drives one run to its end: reads the data, takes the run directory, joins the cluster, makes the actors, runs the loop. What it opened is
 * closed again, also when it fails; what is durable stays, and the same command resumes.
 */
async function train(mode: RunMode, words: readonly string[]): Promise<void> {
  const { config } = readRunFlags(mode, words);
  const log = driverLog(systemClock);
  const progress = terminalProgress(process.stdout, systemClock);
  using stop = stopOnSignals((signal) => log.info("run.stopping", { signal, next: "the same command resumes from the last checkpoint" }));
  // Bad data and broken reward functions are found before any GPU is taken.
  await checkRunReward(config, systemClock);
  await using data = await openRunData(config, stop.signal);
  const runId = newRunId();
  const root = resolve(config.runDir ?? join(outputsDirectory, runId));
  const owner = await runOwner();
  await using run = await openRun({ config, root, runId, prompts: data.source.size, owner, clock: systemClock, log });
  progress.done(`run ${run.runId} in ${root}${data.tooLong > 0 ? `; ${data.tooLong} prompts left out for their length` : ""}`);
  await using session = await init({ log });
  await using world = await createRun(run, data, { session, clock: systemClock, random: systemRandom, log, progress });
  const summary = await runLoop(world.ports, run.settings, {
    random: systemRandom,
    signal: stop.signal,
    load: run.load,
    verify: run.verify,
  });
  writeFileSync(join(run.paths.root, "summary.json"), `${JSON.stringify(summary, null, 1)}\n`);
  for (const line of summaryLines(run.paths, summary)) progress.done(line);
}

/** This process, as the run directory's lock names it. */
async function runOwner(): Promise<RunOwner> {
  const { processes } = detectPlatform(process.env);
  const self = await processes.identify(process.pid);
  invariant(self !== null, "this process is in the process table");
  return {
    pid: process.pid,
    host: hostname(),
    birth: `${self.bootId} ${self.startTime}`,
    isAlive: async ({ pid, birth }) => {
      const [bootId = "", ...startTime] = birth.split(" ");
      return processes.isAlive({ bootId, pid, startTime: startTime.join(" ") });
    },
  };
}

/** A driver that is started again for the same job goes on with the same run; a new job makes a new one. */
function newRunId(): string {
  const jobId = process.env["SLIME_JOB_ID"];
  if (jobId !== undefined && jobId !== "") return jobId;
  return `run-${new Date(systemClock.wallMs()).toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-")}`;
}
