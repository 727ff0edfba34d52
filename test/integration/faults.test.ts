/**
 * Every kind of process of a training run is killed with SIGKILL while the run goes on. Each kill is proven: the pid is gone from /proc, an
 * event says so, the run was in the middle; and so is each recovery. At the end the audit finds every prompt trained exactly once.
 */
import { rmSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";
import { join } from "node:path";
import { systemClock } from "@slime/core";
import { until } from "@slime/platform/testing";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFailed, vi } from "vitest";
import { type ActorView, bornAt, Cluster, isAlive, type JobView, journal, listeningPorts, sortRun, trainedCount } from "./cluster.js";

// A slow machine is given time; what has a bound asserts it.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

/** Others who use the processors stretch every time by their share. */
const slack = () => Math.max(1, (loadavg()[0] ?? 0) / availableParallelism());
/** A death is known this soon. */
const knownMsMax = () => 2_000 * slack();
/** An engine, router, worker or rank is back this soon, on two busy cores. */
const backMsMax = 30_000;
const rollouts = 48;

let cluster: Cluster;
let runDir: string;
let pace: string;
let command: readonly string[];
let job: JobView;

beforeAll(async () => {
  cluster = await Cluster.start([2, 2]);
  runDir = join(cluster.home.path, "run");
  // While the file `pace` is there a group's reward takes its time, so that the run cannot end before it was killed often enough.
  pace = cluster.home.file("pace", "");
  const reward = cluster.home.file(
    "reward.mjs",
    `import { existsSync } from "node:fs";
export async function reward(_args, { response, label }) {
  if (existsSync(${JSON.stringify(pace)})) await new Promise((done) => setTimeout(done, 200));
  const answer = response.replaceAll("<eos>", "");
  return [...label].filter((digit, at) => answer[at] === digit).length / Math.max(label.length, answer.length, 1);
}
`,
  );
  const config = sortRun(cluster.home, "faults", {
    "num-rollout": rollouts,
    "actor-num-gpus-per-node": 2,
    "rollout-num-gpus": 2,
    "rollout-num-workers": 2,
    "custom-rm-path": reward,
    "reward-key": "null",
    "save-interval": 2,
  });
  command = ["slime", "train", "--config", config, "--run-dir", runDir];
  job = await cluster.submit("faults-1", command);
  await progress(2);
});

beforeEach(() => {
  onTestFailed(() => {
    process.stderr.write(`${cluster?.written(/driver-\d+\.log$/).slice(-8_000)}\n`);
  });
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** Waits until so many more rollouts are trained; the job's log in the error says why not. */
async function progress(more: number): Promise<void> {
  const goal = trainedCount(runDir) + more;
  await until(`${goal} trained rollouts`, async () => trainedCount(runDir) >= goal || (await failedJob()), 30_000);
}

async function failedJob(): Promise<false> {
  const now = await cluster.job(job.job_id).catch(() => null);
  if (now === null || now.state === "PENDING" || now.state === "RUNNING") return false;
  throw new Error(`the job is ${now.state}: ${now.message}\n${(await cluster.log(job.job_id)).slice(-3_000)}`);
}

async function actor(name: string): Promise<ActorView & { readonly pid: number }> {
  const found = (await cluster.actors(job.job_id)).find((each) => each.name === name && each.state === "ALIVE");
  if (found === undefined || found.pid === null) throw new Error(`${name} is not alive`);
  return { ...found, pid: found.pid };
}

/** What must be the same after somebody else's death. */
const seen = ({ name, state, pid, incarnation, death }: ActorView) => ({ name, state, pid, incarnation, death: death?.message ?? null });

/** Kills, and proves that the run was in the middle and that the process is gone. */
async function killMidRun(pid: number): Promise<number> {
  expect(isAlive(pid)).toBe(true);
  expect(trainedCount(runDir)).toBeLessThan(rollouts);
  process.kill(pid, "SIGKILL");
  const killedMs = systemClock.nowMs();
  await until(`the end of ${pid}`, () => !isAlive(pid));
  return killedMs;
}

/** Kills an actor that its policy restarts: the head knows within the bound, the next life lives in another process. */
async function killActor(name: string): Promise<ActorView> {
  const before = await actor(name);
  const killedMs = await killMidRun(before.pid);
  const known = await until(`the head to know of ${name}'s death`, async () => {
    const now = (await cluster.actors(job.job_id)).find((each) => each.actor_id === before.actor_id);
    return now !== undefined && (now.state !== "ALIVE" || now.incarnation > before.incarnation) ? now : null;
  });
  expect(systemClock.nowMs() - killedMs).toBeLessThan(knownMsMax());
  expect(known.incarnation).toBeGreaterThanOrEqual(before.incarnation);
  const after = await until(
    `${name} to be back`,
    async () =>
      (await cluster.actors(job.job_id)).find(
        (each) => each.actor_id === before.actor_id && each.state === "ALIVE" && each.incarnation === before.incarnation + 1,
      ),
    backMsMax,
  );
  expect(after.pid).not.toBe(before.pid);
  return after;
}

/** How many engines the router gives requests to: in rotation, with the weights of the moment. */
async function enginesAble(): Promise<number> {
  const [port] = listeningPorts([(await actor("router")).pid]);
  if (port === undefined) return 0;
  const answer = await fetch(`http://127.0.0.1:${port}/readiness`).catch(() => null);
  return answer === null ? 0 : ((await answer.json()) as { readonly healthy_workers: number }).healthy_workers;
}

const inRotation = (count: number) =>
  until(`${count} engines in rotation`, async () => (await enginesAble()) === count || (await failedJob()), backMsMax);

describe("kill -9 during a run", () => {
  it("an engine: the other goes on, the killed one comes back with the weights of the moment", async () => {
    await inRotation(2);
    await killActor("engine-1");
    expect(await cluster.log(job.job_id)).toMatch(/engine-1 died:/);
    await inRotation(2);
    await progress(1);
  });

  it("the router: engines are added again, the run goes on through the next one", async () => {
    await killActor("router");
    expect(await cluster.log(job.job_id)).toMatch(/the router died:/);
    await inRotation(2);
    await progress(1);
  });

  it("a rollout worker: its groups go to the other", async () => {
    await killActor("rollout-worker-0");
    expect(await cluster.log(job.job_id)).toMatch(/rollout-worker-0 died:/);
    await progress(1);
  });

  it("a trainer rank: the gang starts again from the last checkpoint, by itself", async () => {
    await until("a checkpoint", () => journal(runDir).some((event) => event.kind === "saved"));
    const before = await Promise.all([actor("trainer-0"), actor("trainer-1")]);
    const killedMs = await killMidRun(before[1].pid);
    const dead = await until("the head to know of the rank's death", async () =>
      (await cluster.actors(job.job_id)).find((each) => each.actor_id === before[1].actor_id && each.state === "DEAD"),
    );
    expect(systemClock.nowMs() - killedMs).toBeLessThan(knownMsMax());
    expect(dead.death?.signal).toBe("SIGKILL");
    const lost = await until("the loop to know", () => journal(runDir).find((event) => event.kind === "trainer.lost"));
    expect(systemClock.nowMs() - killedMs).toBeLessThan(2 * knownMsMax());
    expect(lost.reason).toMatch(/rank 1|SIGKILL/);
    await until(
      "the next era",
      async () => journal(runDir).some((event) => event.kind === "started" && event.era === 2) || (await failedJob()),
      backMsMax,
    );
    expect(await cluster.log(job.job_id)).toMatch(/back to step-\d{7}/);
    const after = await Promise.all([actor("trainer-0"), actor("trainer-1")]);
    expect(after.map(({ actor_id }) => actor_id)).not.toContain(before[0].actor_id);
    expect(isAlive(before[0].pid)).toBe(false);
    await progress(2);
  });

  it("a worker daemon: what it runs goes on under the same pids, and the next join takes it up", async () => {
    const engine = await actor("engine-0");
    const node = (await cluster.nodes()).find((each) => each.node_id === engine.node_id);
    if (node === undefined) throw new Error("the engine has a node");
    const there = (await cluster.actors(job.job_id)).filter((each) => each.node_id === node.node_id && each.state === "ALIVE");
    const born = bornAt(engine.pid);
    const killedMs = await killMidRun(node.pid);
    await until("the head to know of the daemon's death", async () => {
      const now = (await cluster.nodes()).find((each) => each.node_id === node.node_id);
      return now === undefined || now.state !== "ALIVE";
    });
    expect(systemClock.nowMs() - killedMs).toBeLessThan(knownMsMax());
    await progress(1); // with no daemon there; the next one has 15 s in all to be back before the head gives the node up
    const back = await cluster.join(2);
    expect(back).toMatchObject({ node_id: node.node_id, incarnation: node.incarnation + 1 });
    const now = await cluster.actors(job.job_id);
    expect(now.filter((each) => there.some(({ actor_id }) => actor_id === each.actor_id)).map(seen)).toEqual(there.map(seen));
    expect(bornAt(engine.pid)).toBe(born);
    await progress(1);
    await killActor("engine-0"); // the daemon that adopted it sees its death and starts the next
    await inRotation(2);
  });

  it("the head: the run goes on without one, and the next has jobs and actors as they were", async () => {
    const before = await cluster.actors(job.job_id);
    const { epoch } = await cluster.status();
    await killMidRun(cluster.head.pid);
    await expect(cluster.status()).rejects.toThrow();
    await progress(2); // with no head
    const restartMs = systemClock.nowMs();
    await cluster.restartHead();
    expect(systemClock.nowMs() - restartMs).toBeLessThan(10_000 * slack());
    expect((await cluster.status()).epoch).toBe(epoch + 1);
    await until(
      "both nodes at the new head",
      async () => (await cluster.nodes()).filter((node) => node.state === "ALIVE").length === 2,
      10_000,
    );
    const alive = before.filter((each) => each.state === "ALIVE");
    const after = await cluster.actors(job.job_id);
    expect(after.filter((each) => alive.some(({ actor_id }) => actor_id === each.actor_id)).map(seen)).toEqual(alive.map(seen));
    expect(await cluster.job(job.job_id)).toMatchObject({
      state: "RUNNING",
      driver_info: { pid: (await cluster.job("faults-1")).driver_info?.pid },
    });
    await progress(1);
    await killActor("engine-1"); // the new head restarts what dies
    await inRotation(2);
  });

  it("the driver: its job fails and frees its GPUs; the same command resumes from the checkpoint, and the audit is clean", async () => {
    const pid = Number((await cluster.job(job.job_id)).driver_info?.pid);
    const actors = (await cluster.actors(job.job_id)).filter((each) => each.state === "ALIVE");
    const killedMs = await killMidRun(pid);
    const ended = await until("the job to fail", async () => {
      const now = await cluster.job(job.job_id);
      return now.state === "FAILED" ? now : null;
    });
    expect(systemClock.nowMs() - killedMs).toBeLessThan(knownMsMax());
    expect(ended).toMatchObject({ driver_signal: "SIGKILL" });
    await until("its actors to be gone", () => actors.every((each) => each.pid === null || !isAlive(each.pid)));
    await until("free GPUs", async () => (await cluster.nodes()).every((node) => node.gpus.every((gpu) => gpu.held === 0)));
    const saved = journal(runDir).findLast((event) => event.kind === "saved")?.checkpoint;
    expect(saved).toBeDefined();

    job = await cluster.submit("faults-2", command);
    await until(
      "the second attempt",
      async () => journal(runDir).filter((event) => event.kind === "attempt.started").length === 2 || (await failedJob()),
      backMsMax,
    );
    const attempt = journal(runDir).findLast((event) => event.kind === "attempt.started");
    expect(attempt?.checkpoint).toMatchObject({ name: saved?.name });
    rmSync(pace);
    const { code, out, err } = await cluster.home.slime("job", "logs", "-f", "faults-2", "--address", cluster.httpAddress);
    expect(code, `${out}${err}`).toBe(0);
    expect(out).toMatch(new RegExp(`finished: ${rollouts} rollouts`));
    const audit = await cluster.home.slime("audit", runDir);
    expect(audit, audit.out).toMatchObject({ code: 0 });
    expect(audit.out).toMatch(/no prompt lost, none trained twice/);
    expect(audit.out).toMatch(new RegExp(`${rollouts} rollouts in its weights`));
  });
});
