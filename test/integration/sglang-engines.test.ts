/**
 * A run on engines that are servers of their own, started as `python -m sglang.launch_server`: here the embedded engine plays the server.
 * What is shown is the owning: servers die, hang and lose their owner in the middle of a run, nothing is left over, nothing is lost.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { systemClock } from "@slime/core";
import { initialWeights, readModelConfig, writeHfCheckpoint } from "@slime/embedded";
import { until } from "@slime/platform/testing";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFailed, vi } from "vitest";
import { type ActorView, Cluster, isAlive, type JobView, journal, markedProcesses, repository, sortRun, trainedCount } from "./cluster.js";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

/** Others who use the processors stretch every time by their share. */
const slack = () => Math.max(1, (loadavg()[0] ?? 0) / availableParallelism());
/** A server's death is known this soon. */
const knownMsMax = () => 2_000 * slack();
const backMsMax = 60_000;
const rollouts = 400;
const standIn = join(repository, "test/integration/fixtures/sglang-of-embedded");
const sort = join(repository, "examples/sort/model");

let cluster: Cluster;
let runDir: string;
let job: JobView;

beforeAll(async () => {
  cluster = await Cluster.start([3, 2]);
  runDir = join(cluster.home.path, "run");
  // Two engines of one process, and one over two machines (of one GPU each).
  const groups = cluster.home.file(
    "engines.yaml",
    `sglang:
  - name: actor
    server_groups:
      - {worker_type: regular, num_gpus: 2, num_gpus_per_engine: 1}
      - {worker_type: regular, num_gpus: 2, num_gpus_per_engine: 2}
`,
  );
  const env = { PYTHONPATH: standIn, SLIME_TEST_NODE: process.execPath };
  const config = sortRun(cluster.home, "servers", {
    "num-rollout": rollouts,
    "rollout-num-gpus": 4,
    "num-gpus-per-node": 1,
    "sglang-config": groups,
    "rollout-num-workers": 2,
    "rollout-backend": "sglang",
    "sglang-python": "python3",
    "sglang-env": JSON.stringify(env),
    "update-weight-transport": "disk",
    "save-interval": 10,
  });
  job = await cluster.submit("servers", ["slime", "train", "--config", config, "--run-dir", runDir]);
  await progress(2);
});

beforeEach(() => {
  onTestFailed(() => {
    process.stderr.write(`${cluster?.written(/(driver-\d+\.log|engine-.*\.err)$/).slice(-12_000)}\n`);
  });
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** Waits until so many more rollouts are trained; the job's log in the error says why not. */
async function progress(more: number): Promise<void> {
  const goal = trainedCount(runDir) + more;
  await until(`${goal} trained rollouts`, async () => trainedCount(runDir) >= goal || (await failedJob()), backMsMax);
}

async function failedJob(): Promise<false> {
  const now = await cluster.job(job.job_id).catch(() => null);
  if (now === null || now.state === "PENDING" || now.state === "RUNNING") return false;
  throw new Error(`the job is ${now.state}: ${now.message}\n${(await cluster.log(job.job_id)).slice(-3_000)}`);
}

interface Owned {
  readonly actor: ActorView & { readonly pid: number };
  /** The server's main process. */
  readonly server: number;
}

/** An engine's actor and the server below it. */
async function engine(name: string): Promise<Owned | null> {
  const found = (await cluster.actors(job.job_id)).find((each) => each.name === name && each.state === "ALIVE");
  if (found === undefined || found.pid === null) return null;
  const mark = /SLIME_PROCESS_ID=([^\0]*)/.exec(readText(`/proc/${found.pid}/environ`))?.[1] ?? "";
  const server = markedProcesses("SLIME_PROCESS_ID", mark).find((pid) =>
    readText(`/proc/${pid}/cmdline`).split("\0")[1]?.endsWith("serve.mjs"),
  );
  return server === undefined ? null : { actor: { ...found, pid: found.pid }, server };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

async function engineNow(name: string): Promise<Owned> {
  const found = await until(`${name} with its server`, async () => (await engine(name)) ?? (await failedJob()), backMsMax);
  expect(trainedCount(runDir)).toBeLessThan(rollouts - 10);
  return found;
}

/** The next life of an engine has a server of its own. */
async function nextLife(before: Owned): Promise<Owned> {
  const after = await until(
    `the next life of ${before.actor.name}`,
    async () => {
      const now = await engine(before.actor.name);
      return now !== null && now.actor.incarnation > before.actor.incarnation ? now : failedJob();
    },
    backMsMax,
  );
  expect(after.server).not.toBe(before.server);
  return after;
}

/** The engine was pushed the weights of the moment and has answered requests: a server that only began has neither. */
async function servesAgain({ server }: Owned): Promise<void> {
  const port = readText(`/proc/${server}/cmdline`).split("\0")[4];
  await until(
    "the engine to have requests",
    async () => {
      const reply = await fetch(`http://127.0.0.1:${port}/v1/loads`).catch(() => null);
      const { loads } = ((await reply?.json()) ?? { loads: [] }) as { readonly loads: readonly { readonly output_tokens_total: number }[] };
      return (loads[0]?.output_tokens_total ?? 0) > 50 || failedJob();
    },
    backMsMax,
  );
}

describe("servers of a run", () => {
  it("a killed server takes its actor with it, and the next life serves", async () => {
    const before = await engineNow("engine-1");
    const killedMs = systemClock.nowMs();
    process.kill(before.server, "SIGKILL");
    await until("the end of its actor", () => !isAlive(before.actor.pid));
    expect(systemClock.nowMs() - killedMs).toBeLessThan(knownMsMax());
    await servesAgain(await nextLife(before));
    await progress(1);
  });

  it("a killed actor takes its server with it", async () => {
    const before = await engineNow("engine-0");
    process.kill(before.actor.pid, "SIGKILL");
    await until("the end of its server", () => !isAlive(before.server), knownMsMax());
    await servesAgain(await nextLife(before));
    await progress(1);
  });

  it("an engine over two machines dies and comes back as one", async () => {
    const [first, second] = [await engineNow("engine-2"), await engineNow("engine-2-node-1")];
    process.kill(second.server, "SIGKILL");
    await until("the end of both actors", () => !isAlive(second.actor.pid) && !isAlive(first.actor.pid), 2 * knownMsMax());
    await nextLife(second);
    await servesAgain(await nextLife(first));
    await progress(1);
  });

  it("a stopped server gets nothing new, is restarted, and serves again", async () => {
    const before = await engineNow("engine-1");
    const stoppedMs = systemClock.nowMs();
    process.kill(before.server, "SIGSTOP");
    await until("its actor to give it up", () => !isAlive(before.actor.pid), backMsMax);
    // Dead after 30 s without a sign of life, the last one up to 3 s before; a push in between holds the judgement.
    expect(systemClock.nowMs() - stoppedMs).toBeLessThan(45_000 * slack());
    expect(isAlive(before.server)).toBe(false);
    await servesAgain(await nextLife(before));
    await progress(1);
  });

  it("leaves two pushes on disk and no process when it is stopped, and the audit is clean", async () => {
    const weights = readdirSync(join(runDir, "weights"));
    expect(weights.filter((name) => /^weight_v\d{6}$/.test(name)).length).toBeLessThanOrEqual(3);
    const stopped = await cluster.home.slime("job", "stop", "servers", "--address", cluster.httpAddress);
    expect(stopped.code, stopped.err).toBe(0);
    await until(
      "no server to be left",
      () => cluster.marked().every((pid) => !readText(`/proc/${pid}/cmdline`).includes("serve.mjs")),
      20_000,
    );
    expect(journal(runDir).some((event) => event.kind === "saved")).toBe(true);
    const audit = await cluster.home.slime("audit", runDir);
    expect(audit, audit.out).toMatchObject({ code: 0 });
    expect(audit.out).toMatch(/no prompt lost, none trained twice/);
  });
});

describe("external servers", () => {
  it("are used, outlive their engine's actor, and are waited for when they go", async () => {
    const port = await freePort();
    const model = join(cluster.home.path, "model");
    await writeHfCheckpoint(model, await readModelConfig(sort), initialWeights(await readModelConfig(sort), 7), sort);
    const start = () =>
      spawn(process.execPath, [join(standIn, "serve.mjs"), model, "127.0.0.1", String(port), "1"], {
        env: cluster.home.env,
        stdio: "ignore",
      });
    let server = start();
    await until("the server", async () => (await fetch(`http://127.0.0.1:${port}/health`).catch(() => null))?.ok, 20_000 * slack());
    const own = join(cluster.home.path, "external");
    const config = sortRun(cluster.home, "external", {
      "num-rollout": rollouts,
      "rollout-backend": "sglang",
      "rollout-external-engine-addrs": `["127.0.0.1:${port}"]`,
      "update-weight-transport": "disk",
    });
    const words = readText(config)
      .split("\n")
      .filter((line) => !line.startsWith("rollout-num-gpus"))
      .join("\n");
    const { job_id } = await cluster.submit("external", [
      "slime",
      "train",
      "--config",
      cluster.home.file("external.yaml", words),
      "--run-dir",
      own,
    ]);
    const goesOn = async () => {
      const goal = trainedCount(own) + 2;
      await until(`${goal} rollouts`, () => trainedCount(own) >= goal, backMsMax);
    };
    await goesOn();
    const actor = async () => (await cluster.actors(job_id)).find(({ name, state }) => name === "engine-0" && state === "ALIVE");
    const before = await actor();
    process.kill(before?.pid ?? 0, "SIGKILL");
    await until("the next life of its actor", async () => ((await actor())?.incarnation ?? 0) > (before?.incarnation ?? 0), backMsMax);
    expect(server.exitCode).toBeNull();
    await goesOn();
    server.kill("SIGKILL");
    await once(server, "exit");
    server = start();
    await goesOn();
    const stopped = await cluster.home.slime("job", "stop", "external", "--address", cluster.httpAddress);
    expect(stopped.code, stopped.err).toBe(0);
    expect(server.exitCode).toBeNull();
    server.kill("SIGKILL");
  });
});
