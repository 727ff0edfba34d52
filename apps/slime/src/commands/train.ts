import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { abortable, systemClock, systemRandom } from "@slime/core";
import { typedCommand } from "@slime/platform";
import type { RunMode } from "@slime/rl-config";
import { init, reportOutput } from "@slime/runtime";
import { type OpenedRun, openRun, type ProgressSink, runLoop } from "@slime/training";
import type { Command } from "commander";
import { driverLog } from "../driver-log.js";
import { resumeLines } from "../resume.js";
import { openRunData } from "../run-data.js";
import { readRunFlags, runFlagsCommand } from "../run-flags.js";
import { runOwner } from "../run-owner.js";
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
  const { env } = process;
  let opened: OpenedRun | null = null;
  using stop = stopOnSignals((signal) => void sayStop(signal));
  const log = driverLog({ write: sayBeside, isStopping: () => stop.signal.aborted });
  const shown = terminalProgress(process.stdout, systemClock);
  const progress: ProgressSink = { ...shown, update: (line) => (stop.signal.aborted ? undefined : shown.update(line)) };
  const sayStop = async (signal: string) => {
    const lines = opened === null ? [] : await resumeLines({ run: opened, config, words, env });
    for (const line of [`stopping (${signal})`, ...lines]) progress.done(line);
  };
  // Bad data and broken reward functions are found before any GPU is taken.
  await checkRunReward(config, systemClock);
  await using data = await openRunData(config, stop.signal);
  const runId = newRunId(env);
  const root = resolve(config.runDir ?? join(outputsDirectory, runId));
  const owner = await runOwner();
  await using run = await openRun({ config, root, runId, prompts: data.source.size, owner, clock: systemClock, log });
  opened = run;
  progress.done(`run ${run.runId} in ${root}${data.tooLong > 0 ? `; ${data.tooLong} prompts left out for their length` : ""}`);
  await using session = await init({ log });
  reportOutput(root).catch((error: unknown) => log.warn("run.directory_not_reported", { error: String(error) }));
  const creating = createRun(run, data, { session, clock: systemClock, random: systemRandom, log, progress });
  // Who stops while GPUs are still waited for need not wait; the session's end takes along what was made.
  await using world = await abortable(creating, stop.signal);
  const summary = await runLoop(world.ports, run.settings, {
    random: systemRandom,
    signal: stop.signal,
    load: run.load,
    verify: run.verify,
  });
  writeFileSync(join(run.paths.root, "summary.json"), `${JSON.stringify(summary, null, 1)}\n`);
  for (const line of summaryLines(run.paths, summary, typedCommand("slime", env))) progress.done(line);
}

/** A line on stderr that does not run into the progress line of a terminal. */
function sayBeside(line: string): void {
  process.stderr.write(`${process.stderr.isTTY ? "\r\x1b[K" : ""}${line}\n`);
}

/** Job, submission and run directory have one name; a driver that is started again for the same job goes on with the same run. */
function newRunId(env: Readonly<Record<string, string | undefined>>): string {
  for (const name of ["SLIME_SUBMISSION_ID", "SLIME_JOB_ID"]) {
    const id = env[name];
    if (id !== undefined && id !== "") return id;
  }
  return `run-${new Date(systemClock.wallMs()).toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-")}`;
}
