import { existsSync } from "node:fs";
import { basename, join, relative, resolve } from "node:path";
import { SlimeError, systemClock, systemRandom } from "@slime/core";
import type { Command } from "commander";
import { followJob } from "../client/follow-job.js";
import { headClient } from "../client/head-client.js";
import { shellLine } from "../client/shell-words.js";
import { startLocalCluster } from "../local-cluster.js";
import { stopOnSignals } from "../stop-on-signals.js";
import { outputsDirectory } from "./train.js";

interface QuickstartFlags {
  readonly config: string;
  readonly runDir?: string;
}

/** Adds `slime quickstart`. */
export function register(program: Command): void {
  program
    .command("quickstart")
    .description("start a cluster on this machine, train a small model on it with live progress, end the cluster again")
    .option("--config <file>", "the run", "examples/sort/run.yaml")
    .option("--run-dir <dir>", `where the run goes; default: ${outputsDirectory}/quickstart-<time>`)
    .argument("[flags...]", "more flags of `slime train`, after --")
    .addHelpText(
      "after",
      `
Examples:
  slime quickstart                               (in the clone: npm run quickstart)
  slime quickstart -- --seed 7 --num-rollout 150
The cluster takes free ports and its own state below the run directory: it does not meet another cluster of this machine.`,
    )
    .action((flags: string[], options: QuickstartFlags) => quickstart(flags, options));
}

async function quickstart(flags: readonly string[], options: QuickstartFlags): Promise<void> {
  if (!existsSync(options.config)) {
    throw new SlimeError(
      "file.missing",
      `--config ${options.config}: there is no such file here; run this in the clone of slime, or name a file`,
      { path: resolve(options.config), wanted: "--config" },
    );
  }
  const say = (line: string) => void process.stdout.write(`${line}\n`);
  const root = resolve(options.runDir ?? join(outputsDirectory, `quickstart-${stamp()}`));
  const here = (path: string) => relative(process.cwd(), path) || ".";
  const startedMs = systemClock.nowMs();
  using stop = stopOnSignals(() => say("stopping: ending the job and the cluster …"));
  say(`starting a head and two workers (logs in ${here(join(root, "cluster"))})`);
  await using cluster = await startLocalCluster({
    home: join(root, "cluster"),
    workers: 2,
    gpusPerWorker: 1,
    clock: systemClock,
    signal: stop.signal,
  });
  say(`head at ${cluster.headAddress}; jobs, state and metrics at http://${cluster.httpAddress}`);
  const entrypoint = shellLine(["slime", "train", "--config", options.config, "--run-dir", root, ...flags]);
  say(`$ slime job submit -- ${entrypoint}\n`);
  const head = headClient(`http://${cluster.httpAddress}`);
  const { submission_id: job } = await head.submit({
    entrypoint,
    // The run goes by the name of its directory; one that a job cannot have leaves the choice to the head.
    ...(jobName.test(basename(root)) ? { submission_id: basename(root) } : {}),
    runtime_env: { working_dir: process.cwd() },
  });
  const end = await followJob(head, job, {
    write: (text) => void process.stdout.write(text),
    notice: say,
    clock: systemClock,
    random: systemRandom,
    signal: stop.signal,
  });
  const left = await cluster.stop();
  say(
    `\ncluster ended; ${left.length === 0 ? "no process of it is left" : `still running: ${left.join(", ")}`}; ${((systemClock.nowMs() - startedMs) / 1_000).toFixed(0)} s in all`,
  );
  if (end.state !== "SUCCEEDED")
    throw new SlimeError("job.failed", `the run ended with ${end.state}: ${end.message}`, { jobId: job, exitCode: end.driver_exit_code });
  say("Try next: the same in three terminals (README), another seed (npm run quickstart -- --seed 7), or your own reward function.");
}

const jobName = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

const stamp = () => new Date(systemClock.wallMs()).toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-");
