import { relative, resolve } from "node:path";
import { SlimeError, systemClock, systemRandom } from "@slime/core";
import { typedCommand } from "@slime/platform";
import type { Command } from "commander";
import { exitCodeOf, followJob, interruptedExitCode } from "../client/follow-job.js";
import { headUrl } from "../client/head-address.js";
import { type HeadClient, headClient, type Submission } from "../client/head-client.js";
import { type JobView, jobIsOver } from "../client/shapes.js";
import { shellLine } from "../client/shell-words.js";
import { durationText, shorten, textTable } from "../client/text-table.js";
import { snapshotDirectory } from "../client/working-dir.js";

interface SubmitFlags {
  readonly address?: string;
  readonly submissionId?: string;
  readonly runtimeEnvJson?: string;
  readonly workingDir?: string;
  readonly metadataJson?: string;
  readonly entrypointNumCpus?: string;
  readonly entrypointNumGpus?: string;
  readonly attemptsMax?: string;
  readonly wait: boolean;
}

const addressHelp = "http address of the head (SLIME_ADDRESS; default: the head of this machine)";
/** The command as a person here types it. */
const slime = (): string => typedCommand("slime", process.env);
const out = (text: string): void => void process.stdout.write(text);
/** What the command itself says goes to stderr: stdout is the job's. */
const note = (text: string): void => void process.stderr.write(`slime: ${text}\n`);

/** Adds `slime job submit | list | status | logs | stop`. */
export function register(program: Command): void {
  const job = program.command("job").description("submit jobs, follow their logs, stop them");
  job
    .command("submit")
    .description("run a command on the cluster and show its output; the exit code is the job's")
    .argument("<command...>", "after --, the command to run; a single word is a line for the shell")
    .option("--address <address>", addressHelp)
    .option("--submission-id <id>", "name of the job; submitting the same job under the same id again finds the one there is")
    .option("--runtime-env-json <json>", 'environment: {"env_vars": {"A": "b"}, "working_dir": "/absolute/path"}')
    .option("--working-dir <dir>", "send a copy of this directory and run in it (default: run in the current directory, in place)")
    .option("--metadata-json <json>", 'your own notes: {"owner": "me"}')
    .option("--entrypoint-num-cpus <n>", "CPUs that the driver itself holds")
    .option("--entrypoint-num-gpus <n>", "GPUs that the driver itself holds")
    .option("--attempts-max <n>", "start the driver again when it dies, up to n times in all (default: 1)")
    .option("--no-wait", "print the job's id and leave")
    .addHelpText(
      "after",
      `
Examples:
  slime job submit -- slime train --config examples/sort/run.yaml
  slime job submit --submission-id sort-1 --no-wait -- slime train --config examples/sort/run.yaml
  slime job submit --runtime-env-json '{"env_vars": {"SEED": "7"}}' -- 'echo "seed $SEED" && slime train --config examples/sort/run.yaml --seed $SEED'
  slime job submit --working-dir examples/sort -- ls -l
  slime job submit -- node --import tsx examples/counter/main.ts

A run's directory is outputs/<submission id> unless --run-dir names another. Ctrl-C leaves the job running and says how to follow or stop it.`,
    )
    .action(submit);
  job
    .command("list")
    .description("all jobs, oldest first")
    .option("--address <address>", addressHelp)
    .option("--json", "for machines")
    .action(async (flags: { readonly address?: string; readonly json?: true }) => {
      const jobs = await headClient(headUrl(flags.address)).jobs();
      out(
        flags.json === true
          ? `${JSON.stringify(jobs, null, 2)}\n`
          : jobs.length === 0
            ? "no jobs; `slime job submit -- CMD` runs one\n"
            : `${jobLines(jobs, systemClock.wallMs()).join("\n")}\n`,
      );
    });
  job
    .command("status")
    .description("one job: its state, what it does, where its logs are")
    .argument("<id>", "submission id or job id")
    .option("--address <address>", addressHelp)
    .option("--json", "for machines")
    .action(async (id: string, flags: { readonly address?: string; readonly json?: true }) => {
      const view = await headClient(headUrl(flags.address)).job(id);
      out(flags.json === true ? `${JSON.stringify(view, null, 2)}\n` : `${describeJob(view, systemClock.wallMs()).join("\n")}\n`);
    });
  job
    .command("logs")
    .description("the driver's output")
    .argument("<id>", "submission id or job id")
    .option("-f, --follow", "stay until the job is over; the exit code is the job's")
    .option("--address <address>", addressHelp)
    .addHelpText("after", "\nExamples:\n  slime job logs sort-1\n  slime job logs -f sort-1 > out.log")
    .action(async (id: string, flags: { readonly address?: string; readonly follow?: true }) => {
      const client = headClient(headUrl(flags.address));
      if (flags.follow === true) process.exitCode = await follow(client, id);
      else await printLog(client, id);
    });
  job
    .command("stop")
    .description("end a job; returns when its processes are gone and its GPUs are free")
    .argument("<id>", "submission id or job id")
    .option("--grace <seconds>", "what its driver gets to end by itself (default: 10)")
    .option("--address <address>", addressHelp)
    .action(async (id: string, flags: { readonly address?: string; readonly grace?: string }) => {
      const grace = flags.grace === undefined ? null : wholeNumber("--grace", flags.grace) * 1_000;
      const client = headClient(headUrl(flags.address));
      const stopped = await client.stop(id, grace);
      note(stopped ? `${id} is stopped: its processes are gone and its GPUs are free` : `${id} was over already`);
      const { output_dir: output } = await client.job(id);
      if (output !== null)
        note(`what it made is in ${nearPath(output)}; the end of its log says how it resumes: ${slime()} job logs ${id}`);
    });
}

async function submit(words: readonly string[], flags: SubmitFlags): Promise<void> {
  const client = headClient(headUrl(flags.address));
  const before = flags.submissionId === undefined ? null : await jobOrNull(client, flags.submissionId);
  const { submission_id: id } = await client.submit(await submissionOf(words, flags, client));
  const said = before === null ? "submitted" : `there already (${before.state}; another --submission-id runs it again)`;
  if (!flags.wait) {
    out(`${id}\n`);
    note(`${said}; follow it: ${slime()} job logs -f ${id}   state: ${slime()} job status ${id}   end it: ${slime()} job stop ${id}`);
    return;
  }
  note(before === null ? `job ${id} submitted to ${client.url}` : `job ${id} is ${said}; this is its log`);
  process.exitCode = await follow(client, id);
}

async function jobOrNull(client: HeadClient, id: string): Promise<JobView | null> {
  try {
    return await client.job(id);
  } catch (error) {
    if (SlimeError.is(error, "not_found")) return null;
    throw error;
  }
}

/** @throws SlimeError `config.invalid` with every flag that cannot be read. */
async function submissionOf(words: readonly string[], flags: SubmitFlags, client: HeadClient): Promise<Submission> {
  const issues: string[] = [];
  const runtimeEnv = readObject("--runtime-env-json", flags.runtimeEnvJson, issues);
  const metadata = readObject("--metadata-json", flags.metadataJson, issues);
  if (flags.workingDir !== undefined && "working_dir" in runtimeEnv)
    issues.push("--working-dir and working_dir of --runtime-env-json: give one of them");
  for (const [key, value] of Object.entries(metadata)) if (typeof value !== "string") issues.push(`--metadata-json: ${key} must be text`);
  const cpus = readNumber("--entrypoint-num-cpus", flags.entrypointNumCpus, issues);
  const gpus = readNumber("--entrypoint-num-gpus", flags.entrypointNumGpus, issues);
  const attempts = readNumber("--attempts-max", flags.attemptsMax, issues);
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  return {
    entrypoint: shellLine(words),
    runtime_env: { ...runtimeEnv, working_dir: await workingDirectory(flags, runtimeEnv, client) },
    metadata: metadata as Readonly<Record<string, string>>,
    ...(flags.submissionId === undefined ? {} : { submission_id: flags.submissionId }),
    ...(cpus === null ? {} : { entrypoint_num_cpus: cpus }),
    ...(gpus === null ? {} : { entrypoint_num_gpus: gpus }),
    ...(attempts === null ? {} : { attempts_max: attempts }),
  };
}

/** A copy sent to the head, or a directory used in place: head and command line share a machine. */
async function workingDirectory(flags: SubmitFlags, runtimeEnv: Readonly<Record<string, unknown>>, client: HeadClient): Promise<string> {
  if (flags.workingDir === undefined) {
    const given = runtimeEnv["working_dir"];
    if (typeof given !== "string") return process.cwd();
    return given.includes("://") ? given : resolve(given);
  }
  const snapshot = await snapshotDirectory(flags.workingDir);
  if (snapshot.skipped.length > 0) note(`left out of the copy (no regular files): ${snapshot.skipped.join(", ")}`);
  if (!(await client.hasPackage(snapshot.name))) await client.putPackage(snapshot.name, snapshot.bytes);
  note(`sent ${snapshot.files} files of ${flags.workingDir} (${Math.ceil(snapshot.bytes.length / 1_024)} KiB)`);
  return `slime://${snapshot.name}`;
}

/** Shows a job's output to its end; Ctrl-C leaves it running. @returns the exit code. */
async function follow(client: HeadClient, id: string): Promise<number> {
  const detach = new AbortController();
  const onInterrupt = () => detach.abort(new SlimeError("call.cancelled", "detached", { what: id }));
  process.once("SIGINT", onInterrupt);
  try {
    const job = await followJob(client, id, { clock: systemClock, random: systemRandom, signal: detach.signal, write: out, notice: note });
    note(`job ${id} ${job.state}: ${job.message}`);
    return exitCodeOf(job);
  } catch (error) {
    if (!detach.signal.aborted) throw error;
    note(`left; ${id} goes on.  follow it: ${slime()} job logs -f ${id}   end it: ${slime()} job stop ${id}`);
    return interruptedExitCode;
  } finally {
    process.off("SIGINT", onInterrupt);
  }
}

/** What there is of the log, through the same resumable stream, and no further. */
async function printLog(client: HeadClient, id: string): Promise<void> {
  const response = await fetch(`${client.url}/api/jobs/${encodeURIComponent(id)}/logs`);
  if (!response.ok) {
    await client.job(id); // says what is wrong, with its code
    throw new SlimeError("head.unavailable", `${client.url} answered ${response.status}`, { address: client.url });
  }
  out(((await response.json()) as { readonly logs: string }).logs);
}

/** A table: one job a line. */
export function jobLines(jobs: readonly JobView[], nowMs: number): readonly string[] {
  return textTable(
    ["job", "state", "time", "does", "command", "results"],
    jobs.map((job) => [
      job.submission_id ?? job.job_id,
      job.attempt > 1 ? `${job.state} (attempt ${job.attempt})` : job.state,
      timeOf(job, nowMs),
      shorten(doing(job), 80),
      job.entrypoint === "" ? "(interactive)" : shorten(job.entrypoint, 60),
      job.output_dir === null ? "" : nearPath(job.output_dir),
    ]),
  );
}

function describeJob(job: JobView, nowMs: number): readonly string[] {
  const rows: readonly (readonly [string, string])[] = [
    ["job", `${job.submission_id ?? ""} ${job.job_id}`.trim()],
    ["state", `${job.state}${job.attempts_max > 1 ? ` (attempt ${job.attempt} of ${job.attempts_max})` : ""}`],
    ["", job.message],
    ["does", doing(job)],
    ["time", timeOf(job, nowMs)],
    ["command", job.entrypoint],
    ["in", job.working_dir ?? ""],
    ["results", job.output_dir ?? ""],
    ["node", job.driver_node_id ?? ""],
    ["ended", endOf(job)],
    ["log", job.log_paths.join("\n           ")],
  ];
  return rows.filter(([, value]) => value !== "" && value !== "–").map(([name, value]) => `${name.padEnd(10)} ${value}`);
}

/** Relative where it lies below the current directory. */
function nearPath(path: string): string {
  const near = relative(process.cwd(), path);
  return near === "" || near.startsWith("..") ? path : near;
}

/** How the driver's process ended. */
function endOf(job: JobView): string {
  if (job.driver_exit_code !== null) return `exit code ${job.driver_exit_code}`;
  return job.driver_signal === null || job.driver_signal === "" ? "" : `by ${job.driver_signal}`;
}

function doing(job: JobView): string {
  if (jobIsOver(job) || job.phase === null) return job.state === "PENDING" ? shorten(job.message, 60) : "–";
  return job.waiting_for === null ? job.phase : `${job.phase}, waits for ${job.waiting_for}`;
}

function timeOf(job: JobView, nowMs: number): string {
  return durationText(Math.max(0, (job.end_time ?? nowMs) - (job.start_time ?? job.submitted_at)));
}

function readObject(flag: string, text: string | undefined, issues: string[]): Readonly<Record<string, unknown>> {
  if (text === undefined) return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>;
    issues.push(`${flag}: it must be a JSON object`);
  } catch (error) {
    issues.push(`${flag}: ${error instanceof Error ? error.message : "it is not JSON"}`);
  }
  return {};
}

function readNumber(flag: string, text: string | undefined, issues: string[]): number | null {
  if (text === undefined) return null;
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value) && value >= 0) return value;
  issues.push(`${flag}: ${JSON.stringify(text)} is no number of 0 or more`);
  return null;
}

function wholeNumber(flag: string, text: string): number {
  const issues: string[] = [];
  const value = readNumber(flag, text, issues);
  if (value === null) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  return value;
}
