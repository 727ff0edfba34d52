/**
 * `slime train` on real SGLang servers: the embedded trainer pushes into them after every step, an engine is killed in the middle, and at the
 * end the model has learnt, trainer and engines agree on every token's probability, and no prompt was lost or trained twice.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "@slime/platform/testing";
import { afterAll, beforeAll, describe, expect, it, onTestFailed, vi } from "vitest";
import { Cluster, isAlive, journal, markedProcesses, repository, trainedCount } from "../integration/cluster.js";
import { realEnv } from "./real-env.js";

const minute = 60_000;
// Two servers import for half a minute each on a quiet machine.
vi.setConfig({ testTimeout: 10 * minute, hookTimeout: 2 * minute });

const rollouts = 30;

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start([3]);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

interface RealRun {
  readonly name: string;
  readonly mode: "train" | "train-async";
  readonly flags: readonly string[];
}

/** Submits the example `max` on two SGLang servers. */
async function submit({ name, mode, flags }: RealRun): Promise<string> {
  const real = realEnv();
  const runDir = join(cluster.home.path, name);
  // What slime computes for every server is not the user's to give.
  const passed = Object.entries(real.args).filter(([setting]) => setting !== "skip_server_warmup");
  const args = passed.flatMap(([setting, value]) => [
    `--sglang-${setting.replaceAll("_", "-")}`,
    ...(value === true ? [] : [String(value)]),
  ]);
  await cluster.submit(name, [
    "slime",
    mode,
    ...["--config", join(repository, "examples/max/run.yaml"), "--run-dir", runDir, "--num-rollout", String(rollouts)],
    ...["--rollout-backend", "sglang", "--rollout-num-gpus", "2", "--rollout-batch-size", "16", "--global-batch-size", "128"],
    ...["--sglang-python", real.python, "--sglang-env", JSON.stringify(real.env), ...args],
    ...flags,
  ]);
  onTestFailed(() => {
    process.stderr.write(`${cluster.written(new RegExp(`(${name}/engines/.*|driver-\\d+)\\.log$`)).slice(-12_000)}\n`);
  });
  return runDir;
}

async function trained(job: string, runDir: string, count: number): Promise<void> {
  await until(
    `${count} trained rollouts`,
    async () => {
      const { state, message } = await cluster.job(job);
      if (state !== "PENDING" && state !== "RUNNING" && trainedCount(runDir) < count)
        throw new Error(`the job is ${state}: ${message}\n${(await cluster.log(job)).slice(-4_000)}`);
      return trainedCount(runDir) >= count;
    },
    5 * minute,
  );
}

/** The actor of an engine that lives, and the SGLang processes it owns. */
async function engine(
  job: string,
  name: string,
): Promise<{ readonly pid: number; readonly incarnation: number; readonly servers: readonly number[] }> {
  const { job_id } = await cluster.job(job);
  const found = (await cluster.actors(job_id)).find((actor) => actor.name === name && actor.state === "ALIVE");
  if (found === undefined || found.pid === null) throw new Error(`${name} is not alive`);
  const marks = readFileSync(`/proc/${found.pid}/environ`, "latin1").split("\0");
  const mark = marks.find((line) => line.startsWith("SLIME_PROCESS_ID="))?.split("=")[1] ?? "";
  const pids = markedProcesses("SLIME_PROCESS_ID", mark).filter((pid) => commandLine(pid).includes("sglang"));
  return { pid: found.pid, incarnation: found.incarnation, servers: pids };
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return "";
  }
}

/** Values of one metric over the run, oldest first. */
function series(runDir: string, name: string): readonly number[] {
  const lines = readFileSync(join(runDir, "metrics.jsonl"), "utf8").split("\n").slice(0, -1);
  return lines.map((line) => (JSON.parse(line) as Readonly<Record<string, number>>)[name]).filter((value) => value !== undefined);
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const variance = (values: readonly number[]) => values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1);

/** Kills an engine's server, all of it, and sees that the next life of its actor begins. */
async function killEngine(job: string, name: string): Promise<void> {
  const before = await engine(job, name);
  expect(before.servers.length).toBeGreaterThan(0);
  for (const pid of before.servers) process.kill(pid, "SIGKILL");
  await until("the engine's actor to end with its server", async () => !isAlive(before.pid), 10_000);
  await until("the next life", async () => (await engine(job, name).catch(() => null))?.incarnation === before.incarnation + 1, minute);
}

/** The run is over, has learnt, and lost nothing. */
async function concluded(name: string, runDir: string): Promise<void> {
  const { code, out, err } = await cluster.home.slime("job", "logs", "-f", name, "--address", cluster.httpAddress);
  expect(code, `${out}${err}`).toBe(0);
  const rewards = series(runDir, "rollout/raw_reward");
  const [first, last] = [rewards.slice(0, 5), rewards.slice(-5)];
  const error = Math.sqrt(variance(first) / 5 + variance(last) / 5);
  expect(mean(last) - mean(first), `rewards ${rewards.map((value) => value.toFixed(2)).join(" ")}`).toBeGreaterThan(3 * error);
  const audit = await cluster.home.slime("audit", runDir);
  expect(audit, audit.out).toMatchObject({ code: 0 });
  expect(audit.out).toMatch(/no prompt lost, none trained twice/);
  await until("nothing of SGLang to be left", () => cluster.marked().every((pid) => !commandLine(pid).includes("sglang")), minute);
}

const gap = (runDir: string) => Math.max(...series(runDir, "train/train_rollout_logprob_abs_diff"));

describe("an easy task on real SGLang servers", () => {
  it("is learnt through our router, weights by tensor, with an engine killed in the middle", async () => {
    const name = "real-sync";
    const runDir = await submit({ name, mode: "train", flags: [] });
    await trained(name, runDir, 5);
    await killEngine(name, "engine-1");
    await concluded(name, runDir);
    expect(await cluster.log(name)).toMatch(/engine-1 died/);
    expect(gap(runDir)).toBeLessThanOrEqual(1e-4);
    expect(Math.max(...series(runDir, "rollout/mixed_version_ratio"))).toBe(0);
    expect(journal(runDir).filter((event) => event.kind === "trainer.lost")).toEqual([]);
  });

  it("is learnt through sglang_router, weights by disk, with an engine killed in the middle", async () => {
    const name = "real-router";
    const flags = ["--router-backend", "sglang_router", "--router-policy", "power_of_two", "--update-weight-transport", "disk"];
    const runDir = await submit({ name, mode: "train", flags });
    await trained(name, runDir, 5);
    await killEngine(name, "engine-0");
    await concluded(name, runDir);
    expect(gap(runDir)).toBeLessThanOrEqual(1e-4);
    // Nobody but the workers' own record says so: this router adds no version to a reply.
    expect(Math.max(...series(runDir, "rollout/mixed_version_ratio"))).toBe(0);
  });

  it("is learnt while training goes on, by pushes that leave requests in place", async () => {
    const name = "real-async";
    const runDir = await submit({ name, mode: "train-async", flags: ["--update-weights-pause-mode", "in_place"] });
    await concluded(name, runDir);
    // Tokens of a request that a push met were sampled with the cache of older weights.
    expect(mean(series(runDir, "train/train_rollout_logprob_abs_diff"))).toBeLessThan(0.5);
  });
});
