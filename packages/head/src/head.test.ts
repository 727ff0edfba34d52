import { SlimeError, seededRandom, silentLogger } from "@slime/core";
import { type VirtualClock, virtualClock } from "@slime/core/testing";
import { keptEvents } from "@slime/telemetry/testing";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Head, headLimits, type MemoryDisk, memoryDisk, memoryStore, openHead } from "./index.js";
import { type FakeClient, type FakeDaemon, fakeClient, fakeDaemon, specOf } from "./testing/index.js";

let clock: VirtualClock;
let disk: MemoryDisk;
let head: Head;
let events: ReturnType<typeof keptEvents>;
let failWrites: (() => Promise<void>) | null;
const random = seededRandom(1);

async function startHead(): Promise<Head> {
  return openHead({ store: memoryStore(disk, async () => failWrites?.()), clock, random, log: silentLogger, events: events.sink });
}
/** The head is killed and another starts on its store; links break. */
async function restartHead(): Promise<void> {
  await clock.run(0);
  await head.close();
  head = await startHead();
}
beforeEach(async () => {
  clock = virtualClock();
  disk = memoryDisk();
  events = keptEvents();
  failWrites = null;
  head = await startHead();
});
afterEach(() => head.close());

const node = (n: number) => `node_${String(n).padStart(16, "0")}`;
const actorId = (n: number) => `actor_${String(n).padStart(16, "0")}`;
const groupId = (n: number) => `pg_${String(n).padStart(16, "0")}`;
const daemonOf = (n: number, options: Partial<Parameters<typeof fakeDaemon>[0]> = {}): FakeDaemon =>
  fakeDaemon({ nodeId: node(n), clock, ...options });
async function join(n: number, options: Partial<Parameters<typeof fakeDaemon>[0]> = {}): Promise<FakeDaemon> {
  const daemon = daemonOf(n, options);
  daemon.connect(head);
  await clock.run(0);
  return daemon;
}
async function driver(): Promise<{ client: FakeClient; jobId: string }> {
  const client = fakeClient(head);
  const { jobId } = await client.hello();
  return { client, jobId };
}
const actorOf = (n: number) => {
  const actor = head.state.actors.get(actorId(n));
  if (actor === undefined) throw new Error(`no actor ${n}`);
  return actor;
};
const groupOf = (n: number) => {
  const group = head.state.groups.get(groupId(n));
  if (group === undefined) throw new Error(`no group ${n}`);
  return group;
};
const create = (n: number, jobId: string, overrides: Parameters<typeof specOf>[0] | object = {}) =>
  ({ $case: "createActor", value: { spec: specOf({ actorId: actorId(n), jobId, ...overrides }) } }) as const;
const reserve = (n: number, jobId: string, bundles: readonly Record<string, number>[], strategy = "PACK") =>
  ({
    $case: "createPlacementGroup",
    value: { placementGroupId: groupId(n), jobId, strategy, bundles: bundles.map((resources) => ({ resources })), name: `g${n}` },
  }) as const;
const submission = (jobId: string, submissionId: string, attemptsMax = 1) => ({
  kind: "job.submit" as const,
  job: {
    spec: { jobId, submissionId, entrypoint: "true", env: {}, cwd: "/", metadata: {}, resources: { CPU: 10_000 }, attemptsMax },
    requestHash: "h",
    runtimeEnv: {},
  },
});
const jobId = "job_00000000000000aa";
const jobOf = () => {
  const job = head.state.jobs.get(jobId);
  if (job === undefined) throw new Error("no job");
  return job;
};

describe("nodes", () => {
  test("ALIVE at hello, SUSPECT after 5 s of silence, LOST after 15 s; heard again, ALIVE again", async () => {
    const daemon = await join(1);
    expect(head.state.nodes.get(node(1))?.state).toBe("ALIVE");
    await clock.run(60_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("ALIVE");
    daemon.hang();
    await clock.run(8_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("SUSPECT");
    await clock.run(9_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("LOST");
    daemon.disconnect();
    daemon.connect(head);
    await clock.run(0);
    expect(head.state.nodes.get(node(1))?.state).toBe("ALIVE");
  });

  test("N2, other clusters, other protocols and newer epochs are refused", async () => {
    const daemon = await join(1);
    daemon.restart(true);
    await clock.run(0);
    const stale = daemonOf(1);
    stale.connect(head);
    await clock.run(0);
    expect(stale.heard.map((message) => message.$case)).toEqual(["refused"]);
    expect(head.state.nodes.get(node(1))?.incarnation).toBe(2);
  });

  test("N4: after a restart of the head nobody is LOST within the grace", async () => {
    await join(1);
    await restartHead();
    await clock.run(25_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("SUSPECT");
    await clock.run(10_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("LOST");
  });

  test("the eviction brake: half of four nodes silent at once evicts nobody", async () => {
    const daemons = [await join(1), await join(2), await join(3), await join(4)];
    daemons[0]?.hang();
    daemons[1]?.hang();
    await clock.run(60_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("SUSPECT");
    daemons[1]?.disconnect();
    daemons[1]?.connect(head);
    await clock.run(1_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("LOST");
    expect(events.events.some((event) => event.name === "node.eviction_held")).toBe(true);
  });

  test("a head that did not run for a minute counts that against nobody", async () => {
    const daemon = await join(1);
    let away = 0;
    const { nowMs } = clock;
    Object.assign(clock, { nowMs: () => nowMs() + away });
    away = 60_000;
    await clock.run(3_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("ALIVE");
    daemon.hang();
    await clock.run(16_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("LOST");
  });

  test("the brake counts nodes whose heartbeats come at different moments", async () => {
    const daemons = [];
    for (let n = 1; n <= 4; n++) {
      daemons.push(await join(n));
      await clock.run(700);
    }
    daemons[0]?.hang();
    daemons[1]?.hang();
    await clock.run(60_000);
    expect([1, 2].map((n) => head.state.nodes.get(node(n))?.state)).toEqual(["SUSPECT", "SUSPECT"]);
  });

  test("a broken connection: SUSPECT at once, ALIVE when it speaks again", async () => {
    const daemon = await join(1);
    daemon.disconnect();
    await clock.run(0);
    expect(head.state.nodes.get(node(1))).toMatchObject({ state: "SUSPECT", reason: "its connection broke" });
    daemon.connect(head);
    await clock.run(0);
    expect(head.state.nodes.get(node(1))?.state).toBe("ALIVE");
  });

  test("goodbye: LEFT at once", async () => {
    const daemon = await join(1);
    daemon.say({ $case: "goodbye", value: { reason: "slime-worker stop" } });
    await clock.run(0);
    expect(head.state.nodes.get(node(1))).toMatchObject({ state: "LEFT", reason: "slime-worker stop" });
  });
});

describe("actors", () => {
  test("created, alive, pushed to who watches; created again, the same", async () => {
    await join(1, { gpus: 1 });
    const { client, jobId: job } = await driver();
    const info = await client.actor(create(1, job, { resources: { CPU: 10_000, GPU: 10_000 } }));
    expect(info.state).toBe("PENDING_CREATION");
    await clock.run(0);
    expect(client.pushes.at(-1)).toMatchObject({
      $case: "actor",
      value: { state: "ALIVE", incarnation: 1, socket: expect.stringContaining("a-") as string },
    });
    expect(actorOf(1).place).toEqual({ nodeId: node(1), gpuIndices: [0], bundle: null });
    expect((await client.actor(create(1, job))).state).toBe("ALIVE");
  });

  test("waits visibly for what is held, says who holds it, and starts when it is freed (H8)", async () => {
    await join(1, { gpus: 1 });
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { resources: { GPU: 10_000 }, name: "engine-0" }));
    await client.actor(create(2, job, { resources: { GPU: 10_000 } }));
    await clock.run(0);
    expect(actorOf(2)).toMatchObject({
      state: "PENDING_CREATION",
      waiting: [expect.stringMatching(/GPU: 1 wanted, 0 of 1 free; held by actor engine-0/)],
    });
    await client.actor({ $case: "killActor", value: { actorId: actorId(1), graceMs: 10, noRestart: true } });
    await clock.run(0);
    expect(actorOf(1)).toMatchObject({ state: "DEAD", death: { reason: "KILLED" } });
    expect(actorOf(2).state).toBe("ALIVE");
  });

  test("what can never fit fails at once, with the numbers", async () => {
    await join(1, { gpus: 1 });
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { resources: { GPU: 40_000 } }));
    await clock.run(0);
    expect(actorOf(1)).toMatchObject({
      state: "DEAD",
      death: { reason: "CREATION_FAILED", message: expect.stringContaining("{GPU 4} fits no node") as string },
    });
    expect(actorOf(1).creationFailure.toString()).toContain("placement.infeasible");
  });

  test("restarts with backoff within its window, then is exhausted; every death is told", async () => {
    const daemon = await join(1);
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { restartsMax: 2, restartWindowMs: 60_000 }));
    for (const incarnation of [1, 2]) {
      await clock.run(200);
      expect(actorOf(1)).toMatchObject({ state: "ALIVE", incarnation });
      daemon.die(actorId(1));
      await clock.run(0);
      expect(actorOf(1)).toMatchObject({ state: "RESTARTING", restarts: incarnation, death: { signal: "SIGKILL" } });
    }
    await clock.run(200);
    daemon.die(actorId(1));
    await clock.run(0);
    expect(actorOf(1)).toMatchObject({
      state: "DEAD",
      death: { reason: "RESTARTS_EXHAUSTED", message: expect.stringContaining("SIGKILL") as string },
    });
  });

  test("restarts outside the window do not count", async () => {
    const daemon = await join(1);
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { restartsMax: 1, restartWindowMs: 10_000 }));
    for (let i = 1; i <= 4; i++) {
      await clock.run(11_000);
      expect(actorOf(1)).toMatchObject({ state: "ALIVE", incarnation: i });
      daemon.die(actorId(1));
    }
  });

  test("H7: a constructor's failure is final, and kept", async () => {
    const daemon = await join(1, { onStart: () => {} });
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { restartsMax: -1 }));
    await clock.run(0);
    daemon.die(actorId(1), { message: "the constructor threw" }, Buffer.from('{"code":"actor.creation"}'));
    await clock.run(0);
    expect(actorOf(1)).toMatchObject({ state: "DEAD", death: { reason: "CREATION_FAILED" } });
    expect(actorOf(1).creationFailure.toString()).toContain("actor.creation");
  });

  test("H5: reports of another incarnation change nothing; H6: DEAD is final", async () => {
    const daemon = await join(1);
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { restartsMax: -1 }));
    await clock.run(0);
    daemon.die(actorId(1));
    await clock.run(200);
    expect(actorOf(1).incarnation).toBe(2);
    daemon.say({
      $case: "actor",
      value: {
        actorId: actorId(1),
        incarnation: 1,
        state: { $case: "gone", value: { death: undefined, creationFailure: Buffer.alloc(0) } },
      },
    });
    await clock.run(0);
    expect(actorOf(1)).toMatchObject({ state: "ALIVE", incarnation: 2 });
  });

  test("a lost node's actors start elsewhere; when the node is back, its stale incarnations are stopped (N3)", async () => {
    const first = await join(1, { cpus: 1 });
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { restartsMax: 1 }));
    await clock.run(0);
    const second = await join(2, { cpus: 1 });
    first.hang();
    await clock.run(20_000);
    expect(actorOf(1)).toMatchObject({ state: "ALIVE", incarnation: 2, place: { nodeId: node(2) } });
    expect(second.actors.size).toBe(1);
    first.disconnect();
    first.connect(head);
    await clock.run(0);
    expect(first.heard.filter((message) => message.$case === "stopActor")).toHaveLength(1);
    expect(first.actors.size).toBe(0);
    expect(actorOf(1)).toMatchObject({ state: "ALIVE", incarnation: 2 });
  });
});

describe("order", () => {
  test("H1: what changes nothing does not overtake a commit under way: no dirty read, no stop before its start", async () => {
    const daemon = await join(1);
    const { client, jobId: job } = await driver();
    let finish: () => void = () => {};
    failWrites = () => new Promise((resolve) => void (finish = resolve));
    const created = client.actor(create(1, job));
    await clock.run(0);
    const killed = client.actor({ $case: "killActor", value: { actorId: actorId(1), graceMs: 0, noRestart: false } });
    const read = client.actor({ $case: "resolveActor", value: { actorId: actorId(1) } });
    await clock.run(100);
    expect(daemon.heard.map((message) => message.$case).filter((kind) => kind.endsWith("Actor"))).toEqual([]);
    failWrites = null;
    finish();
    await clock.run(100);
    await Promise.all([created, killed, read]);
    expect(daemon.heard.map((message) => message.$case).filter((kind) => kind.endsWith("Actor"))).toEqual(["startActor", "stopActor"]);
  });
});

describe("placement groups", () => {
  test("prepared on every node, then committed; bundles in rank order; actors land in their bundle", async () => {
    const [a, b] = [await join(1, { gpus: 2, address: "10.0.0.10" }), await join(2, { gpus: 2, address: "10.0.0.9" })];
    const { client, jobId: job } = await driver();
    const gpu = { GPU: 10_000, CPU: 10_000 };
    await client.group(reserve(1, job, [gpu, gpu, gpu, gpu]));
    await client.actor(create(1, job, { placementGroupId: groupId(1), bundleIndex: 3, resources: { GPU: 4_000 } }));
    await clock.run(0);
    expect(groupOf(1).state).toBe("CREATED");
    expect(groupOf(1).plan.map((bundle) => [bundle.nodeId, bundle.gpuIndices[0]])).toEqual([
      [node(2), 0],
      [node(2), 1],
      [node(1), 0],
      [node(1), 1],
    ]);
    expect([...a.heard, ...b.heard].map((message) => message.$case).filter((kind) => kind === "prepare" || kind === "commit")).toEqual([
      "prepare",
      "commit",
      "prepare",
      "commit",
    ]);
    const bundle = groupOf(1).plan.find((planned) => planned.index === 3);
    expect(actorOf(1)).toMatchObject({ state: "ALIVE", place: { nodeId: bundle?.nodeId, gpuIndices: bundle?.gpuIndices, bundle: 3 } });
  });

  test("infeasible at once with the numbers; waiting for what is held; created when it is freed", async () => {
    await join(1, { gpus: 2 });
    const { client, jobId: job } = await driver();
    await client.group(reserve(1, job, [{ GPU: 20_000 }]));
    await client.group(reserve(2, job, [{ GPU: 10_000 }]));
    await client.group(reserve(3, job, [{ GPU: 10_000 }, { GPU: 20_000 }]));
    await client.actor(create(9, job, { placementGroupId: groupId(2), resources: {} }));
    await clock.run(0);
    expect(groupOf(3)).toMatchObject({
      state: "INFEASIBLE",
      waiting: [expect.stringContaining("GPU: 3 wanted, the cluster has 2 in all")],
    });
    expect(groupOf(2)).toMatchObject({
      state: "PENDING",
      waiting: [expect.stringMatching(/GPU: 1 wanted, 0 of 2 free; held by placement group g1/)],
    });
    expect(actorOf(9)).toMatchObject({ state: "DEPENDENCIES_UNREADY", waiting: [expect.stringContaining("g2")] });
    await client.group({ $case: "removePlacementGroup", value: { placementGroupId: groupId(1) } });
    await clock.run(0);
    expect(groupOf(2).state).toBe("CREATED");
    expect(actorOf(9).state).toBe("ALIVE");
  });

  test("G4: a removed group's actors end before it is released", async () => {
    const daemon = await join(1, { gpus: 1 });
    const { client, jobId: job } = await driver();
    await client.group(reserve(1, job, [{ GPU: 10_000 }]));
    await client.actor(create(1, job, { placementGroupId: groupId(1), resources: { GPU: 10_000 } }));
    await clock.run(0);
    await client.group({ $case: "removePlacementGroup", value: { placementGroupId: groupId(1) } });
    await clock.run(0);
    const order = daemon.heard.map((message) => message.$case).filter((kind) => kind === "stopActor" || kind === "release");
    expect(order).toEqual(["stopActor", "release"]);
    expect(actorOf(1)).toMatchObject({ state: "DEAD", death: { reason: "PLACEMENT_REMOVED" } });
    expect(groupOf(1)).toMatchObject({ state: "REMOVED", plan: [] });
  });

  test("a refused reservation is given back everywhere and tried again", async () => {
    const daemon = await join(1, { gpus: 1, autoReserve: false });
    const { client, jobId: job } = await driver();
    await client.group(reserve(1, job, [{ GPU: 10_000 }]));
    await clock.run(0);
    const answer = (step: string, generation: number, failure = "") =>
      daemon.say({ $case: "bundles", value: { placementGroupId: groupId(1), generation, step, failure: Buffer.from(failure) } });
    answer("prepare", 1, "{}");
    await clock.run(0);
    expect(groupOf(1)).toMatchObject({ state: "PENDING", plan: [] });
    await clock.run(150);
    expect(groupOf(1).generation).toBe(2);
    answer("prepare", 1); // G3: stale
    await clock.run(0);
    expect(groupOf(1).state).toBe("PENDING");
    answer("prepare", 2);
    await clock.run(0);
    expect(groupOf(1).state).toBe("PREPARED");
    answer("commit", 2);
    await clock.run(0);
    expect(groupOf(1).state).toBe("CREATED");
  });

  test("a lost node's bundles are placed again, the others stay", async () => {
    const [first] = [await join(1, { gpus: 1 }), await join(2, { gpus: 1 })];
    const { client, jobId: job } = await driver();
    await client.group(reserve(1, job, [{ GPU: 10_000 }, { GPU: 10_000 }], "STRICT_SPREAD"));
    await client.actor(create(1, job, { placementGroupId: groupId(1), bundleIndex: 0, resources: { GPU: 10_000 }, restartsMax: -1 }));
    await client.actor(create(2, job, { placementGroupId: groupId(1), bundleIndex: 1, resources: { GPU: 10_000 }, restartsMax: -1 }));
    await clock.run(0);
    const lost = groupOf(1).plan.find((bundle) => bundle.nodeId === node(1))?.index;
    first?.hang();
    await clock.run(20_000);
    expect(groupOf(1)).toMatchObject({
      state: "RESCHEDULING",
      waiting: [expect.stringContaining("GPU: 2 wanted, the cluster has 1 in all")],
    });
    await join(3, { gpus: 1 });
    await clock.run(1_000);
    expect(groupOf(1).state).toBe("CREATED");
    expect(groupOf(1).plan.find((bundle) => bundle.index === lost)?.nodeId).toBe(node(3));
    expect([actorOf(1), actorOf(2)].map((actor) => [actor.state, actor.incarnation]).sort()).toEqual([
      ["ALIVE", 1],
      ["ALIVE", 2],
    ]);
  });
});

describe("jobs", () => {
  test("PENDING without a node, RUNNING, SUCCEEDED; idempotent by submission id (J2)", async () => {
    await head.ask(submission(jobId, "train-1"));
    expect(jobOf()).toMatchObject({ state: "PENDING", message: expect.stringContaining("no node has joined yet") as string });
    const daemon = await join(1);
    expect(jobOf()).toMatchObject({ state: "RUNNING", nodeId: node(1), logPaths: [`/var/log/${node(1)}/${jobId}-1.log`] });
    await expect(head.ask({ ...submission("job_00000000000000bb", "train-1") })).resolves.toMatchObject({ jobId });
    const other = submission("job_00000000000000bb", "train-1");
    await expect(head.ask({ ...other, job: { ...other.job, requestHash: "other" } })).rejects.toMatchObject({ code: "conflict" });
    daemon.driverEnds(jobId, 0);
    await clock.run(0);
    expect(jobOf()).toMatchObject({ state: "SUCCEEDED", exitCode: 0 });
    expect(daemon.heard.at(-1)).toMatchObject({ $case: "forgetJob" });
  });

  test("J1: a job that ends takes its actors and groups with it, detached ones stay; then its GPUs are free", async () => {
    const daemon = await join(1, { gpus: 2, cpus: 8 });
    await head.ask(submission(jobId, "train-1"));
    const client = fakeClient(head);
    await client.hello({ jobId });
    await client.group(reserve(1, jobId, [{ GPU: 10_000 }]));
    await client.actor(create(1, jobId, { placementGroupId: groupId(1), resources: { GPU: 10_000 } }));
    await client.actor(create(2, jobId, { lifetime: "detached" }));
    await clock.run(0);
    const stopped = head.ask({ kind: "job.stop", jobId, graceMs: 1_000, waitMs: 60_000, reason: "it was stopped by request" });
    await clock.run(0);
    await stopped;
    expect(jobOf()).toMatchObject({ state: "STOPPED" });
    expect(actorOf(1)).toMatchObject({ state: "DEAD", death: { reason: "JOB_ENDED" } });
    expect(actorOf(2).state).toBe("ALIVE");
    expect(daemon.bundles.size).toBe(0);
    expect(daemon.jobs.size).toBe(0);
  });

  test("a stop whose daemon does not answer says what is left, and goes on", async () => {
    const daemon = await join(1);
    await head.ask(submission(jobId, "train-1"));
    await clock.run(0);
    daemon.hang();
    const stop = head.ask({ kind: "job.stop", jobId, graceMs: 1_000, waitMs: 5_000, reason: "x" });
    const refused = expect(stop).rejects.toMatchObject({
      code: "call.deadline",
      message: expect.stringContaining("its driver (pid") as string,
    });
    await clock.run(6_000);
    await refused;
    expect(jobOf().state).toBe("STOPPING");
    await clock.run(15_000); // its node is lost: nothing of it runs any more
    expect(jobOf().state).toBe("STOPPED");
  });

  test("a driver that dies starts again within its attempts, without the actors of the last one (J3)", async () => {
    const daemon = await join(1);
    await head.ask(submission(jobId, "train-1", 2));
    const client = fakeClient(head);
    await client.hello({ jobId });
    await client.actor(create(1, jobId));
    await clock.run(0);
    daemon.driverEnds(jobId, 137);
    await clock.run(0);
    expect(jobOf()).toMatchObject({ state: "RUNNING", attempt: 2 });
    expect(jobOf().logPaths).toHaveLength(2);
    expect(actorOf(1).state).toBe("DEAD");
    daemon.driverEnds(jobId, 3);
    await clock.run(0);
    expect(jobOf()).toMatchObject({ state: "FAILED", exitCode: 3, message: expect.stringContaining("exit code 3") as string });
  });

  test("C2: an interactive driver's job ends with its goodbye, or 120 s after its stream broke unless it comes back", async () => {
    const one = await driver();
    await one.client.call({ $case: "goodbye", value: { exitCode: 0 } });
    expect(head.state.jobs.get(one.jobId)?.state).toBe("SUCCEEDED");
    const two = await driver();
    two.client.close();
    await clock.run(headLimits.clientGraceMs - 1_000);
    const again = fakeClient(head);
    expect((await again.hello({ jobId: two.jobId })).jobId).toBe(two.jobId);
    await clock.run(10_000);
    expect(head.state.jobs.get(two.jobId)?.state).toBe("RUNNING");
    again.close();
    await clock.run(headLimits.clientGraceMs + 1_000);
    expect(head.state.jobs.get(two.jobId)?.state).toBe("FAILED");
  });
});

describe("the head's own death", () => {
  test("jobs, actors, groups and keys are there again; daemons re-register; nothing is started twice", async () => {
    const daemon = await join(1, { gpus: 1, cpus: 8 });
    await head.ask(submission(jobId, "train-1"));
    const client = fakeClient(head);
    await client.hello({ jobId });
    await client.group(reserve(1, jobId, [{ GPU: 10_000, CPU: 10_000 }]));
    await client.actor(create(1, jobId, { placementGroupId: groupId(1), resources: { GPU: 10_000 } }));
    await client.call({ $case: "kvPut", value: { key: "a/b", value: Buffer.from("v"), ifAbsent: false } });
    await clock.run(0);
    const before = {
      epoch: head.epoch,
      pid: actorOf(1).pid,
      starts: daemon.heard.filter((message) => message.$case === "startActor").length,
    };
    daemon.disconnect();
    await restartHead();
    expect(head.epoch).toBe(before.epoch + 1);
    daemon.connect(head);
    await clock.run(0);
    expect(actorOf(1)).toMatchObject({ state: "ALIVE", incarnation: 1, pid: before.pid });
    expect(jobOf()).toMatchObject({ state: "RUNNING", attempt: 1 });
    expect(groupOf(1).state).toBe("CREATED");
    expect(daemon.heard.filter((message) => message.$case === "startActor")).toHaveLength(before.starts);
    expect(daemon.actors.size + daemon.jobs.size + daemon.bundles.size).toBe(3);
    const back = fakeClient(head);
    await back.hello({ jobId });
    expect(await back.call({ $case: "kvGet", value: { key: "a/b" } })).toMatchObject({ value: { found: true, value: Buffer.from("v") } });
    expect((await back.actor({ $case: "resolveActor", value: { actorId: actorId(1) } })).state).toBe("ALIVE");
  });

  test("what ended while it was away is believed with its exit code", async () => {
    const daemon = await join(1);
    await head.ask(submission(jobId, "train-1"));
    const client = fakeClient(head);
    await client.hello({ jobId });
    await client.actor(create(1, jobId));
    await clock.run(0);
    daemon.disconnect();
    daemon.die(actorId(1), { message: "out of memory", oom: true });
    daemon.driverEnds(jobId, 0);
    await restartHead();
    daemon.connect(head);
    await clock.run(0);
    expect(jobOf()).toMatchObject({ state: "SUCCEEDED", exitCode: 0 });
    expect(actorOf(1)).toMatchObject({ state: "DEAD", death: { oom: true } });
  });

  test("a start that was never heard is said again; a two-phase commit goes on where it was", async () => {
    const daemon = await join(1, { gpus: 1, autoReserve: false });
    const { client, jobId: job } = await driver();
    await client.group(reserve(1, job, [{ GPU: 10_000 }]));
    await clock.run(0);
    daemon.say({ $case: "bundles", value: { placementGroupId: groupId(1), generation: 1, step: "prepare", failure: Buffer.alloc(0) } });
    await clock.run(0);
    expect(groupOf(1).state).toBe("PREPARED");
    daemon.disconnect();
    await restartHead();
    daemon.connect(head);
    await clock.run(0);
    expect(daemon.heard.filter((message) => message.$case === "commit").length).toBeGreaterThanOrEqual(1);
    daemon.say({ $case: "bundles", value: { placementGroupId: groupId(1), generation: 1, step: "commit", failure: Buffer.alloc(0) } });
    await clock.run(0);
    expect(groupOf(1).state).toBe("CREATED");
  });

  test("a daemon that died and adopted its actors changes nothing for them; one that came back empty loses them", async () => {
    const daemon = await join(1);
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job, { restartsMax: 1 }));
    await clock.run(0);
    const { pid } = actorOf(1);
    daemon.restart(true);
    await clock.run(100);
    expect(actorOf(1)).toMatchObject({ state: "ALIVE", incarnation: 1, pid });
    daemon.restart(false);
    await clock.run(200);
    expect(actorOf(1)).toMatchObject({
      state: "ALIVE",
      incarnation: 2,
      death: { message: expect.stringContaining("came back without it") as string },
    });
  });

  test("H2: a full disk refuses with a type, undoes, and only reads from then on", async () => {
    await join(1);
    const { client, jobId: job } = await driver();
    await client.actor(create(1, job));
    await clock.run(0);
    failWrites = async () => {
      throw new SlimeError("disk.full", "no space left", { path: "/state", needed: null });
    };
    await expect(client.actor(create(2, job))).rejects.toMatchObject({ code: "disk.full" });
    await expect(head.ask(submission(jobId, "train-1"))).rejects.toMatchObject({ code: "disk.full" });
    expect(head.state.actors.get(actorId(2))).toBeUndefined();
    expect(head.state.jobs.get(jobId)).toBeUndefined();
    expect(head.readOnly()).toContain("no space left");
    expect((await client.actor({ $case: "resolveActor", value: { actorId: actorId(1) } })).state).toBe("ALIVE");
    failWrites = null;
    await clock.run(60_000);
    expect(head.state.nodes.get(node(1))?.state).toBe("ALIVE"); // heartbeats are heard all the same
  });
});

test("stopping the cluster ends jobs, actors, detached ones too, and daemons", async () => {
  const daemons = [await join(1), await join(2)];
  await head.ask(submission(jobId, "train-1"));
  const client = fakeClient(head);
  await client.hello({ jobId });
  await client.actor(create(1, jobId, { lifetime: "detached" }));
  await client.actor(create(2, jobId));
  await clock.run(0);
  const stopped = head.ask({ kind: "cluster.stop", graceMs: 1_000, waitMs: 30_000 });
  await clock.run(100);
  await expect(stopped).resolves.toEqual({ left: [] });
  expect(jobOf().state).toBe("STOPPED");
  for (const daemon of daemons) expect([daemon.actors.size, daemon.jobs.size]).toEqual([0, 0]);
  expect([...head.state.nodes.values()].map((record) => record.state)).toEqual(["LEFT", "LEFT"]);
});
