/** Real daemons, hosts and drivers on this machine, against a scripted head; daemons and actors are killed. Uses the build. */

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type ScriptedHead, scriptedHead } from "@slime/node/testing";
import { until } from "@slime/platform/testing";
import type { ActorReport, JobReport, StartActor, StartJob } from "@slime/rpc/control";
import { describe, expect, it } from "vitest";
import { actorStart, jobStart, Machine } from "./node-fixture.js";

const hasPython = spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]).status === 0;
if (!hasPython) process.stderr.write("skipped: no Python ≥ 3.10 here\n");

type ActorNews = NonNullable<ActorReport["state"]>;
type JobNews = NonNullable<JobReport["state"]>;
type ActorValue<K extends ActorNews["$case"]> = Extract<ActorNews, { $case: K }>["value"];
type JobValue<K extends JobNews["$case"]> = Extract<JobNews, { $case: K }>["value"];

function actorNews<K extends ActorNews["$case"]>(head: ScriptedHead, start: StartActor, kind: K): Promise<ActorValue<K>> {
  const mine = (report: ActorReport) =>
    report.actorId === start.spec?.actorId && report.incarnation === start.incarnation && report.state?.$case === kind;
  return until<ActorValue<K>>(`actor ${kind}`, () => head.all("actor").findLast(mine)?.state?.value as never);
}
function jobNews<K extends JobNews["$case"]>(head: ScriptedHead, start: StartJob, kind: K): Promise<JobValue<K>> {
  const mine = (report: JobReport) => report.jobId === start.spec?.jobId && report.state?.$case === kind;
  return until<JobValue<K>>(`job ${kind}`, () => head.all("job").findLast(mine)?.state?.value as never);
}
const hello = (head: ScriptedHead, count = 1) => until(`hello ${count}`, () => head.hellos[count - 1]);

async function start(head: ScriptedHead, nodeId: string, actor: StartActor) {
  head.send(nodeId, { $case: "startActor", value: actor });
  return actorNews(head, actor, "alive");
}

describe("a daemon", () => {
  it("runs actors and drivers, says how they died, and leaves nothing behind", async () => {
    await using machine = new Machine();
    await using head = await scriptedHead({ clusterId: machine.clusterId });
    const daemon = machine.join(head.address, "--num-gpus", "2", "--labels", "zone=a");
    const { nodeId, gpus, labels, resources, logDir } = await hello(head);
    expect([gpus.length, labels, resources["CPU"], resources["GPU"]]).toEqual([2, { zone: "a" }, 20_000, 20_000]);

    const one = actorStart({ resources: { GPU: 10_000 }, env: { MODE: "x" } }, 1, [1]);
    const alive = await start(head, nodeId, one);
    const peer = await machine.connect(alive.socket);
    expect(await peer.call("add", [2])).toBe(7);
    expect(await peer.call("where", [])).toEqual({ pid: alive.pid, cuda: "1", job: one.spec?.jobId, mode: "x" });
    const runaway = await peer.call("runaway", []);
    const leased = (await peer.call("lease", [3])) as readonly number[];
    expect(readdirSync(join(machine.socketDir, "ports")).map(Number)).toEqual([...leased].sort());

    process.kill(alive.pid, "SIGKILL");
    const gone = await actorNews(head, one, "gone");
    expect(gone.death).toMatchObject({ reason: "WORKER_DIED", signal: "SIGKILL", pid: alive.pid, oom: false });
    expect(await machine.platform.processes.identify(Number(runaway))).toBeNull();
    expect(readdirSync(join(machine.socketDir, "ports"))).toEqual([]);

    const broken = actorStart({ start: "fail" });
    head.send(nodeId, { $case: "startActor", value: broken });
    const failed = await actorNews(head, broken, "gone");
    expect(failed.death?.reason).toBe("CREATION_FAILED");
    expect(failed.creationFailure.toString()).toMatch(/no such start/);

    const job = jobStart("echo out; echo err >&2; echo $SLIME_JOB_ID $GREETING; exit 3", { GREETING: "hi" });
    head.send(nodeId, { $case: "startJob", value: job });
    expect(await jobNews(head, job, "ended")).toMatchObject({ exitCode: 3, stopped: false });
    const { logPath } = await jobNews(head, job, "running");
    expect(readFileSync(logPath, "utf8")).toBe(`out\nerr\n${job.spec?.jobId} hi\n`);
    const named = readdirSync(join(logDir, "jobs", one.spec?.jobId ?? ""));
    expect(named.map((name) => name.replace(/-[0-9a-f]{16}-/, "-ID-")).sort()).toEqual(["counter-0-ID-1.err", "counter-0-ID-1.out"]);

    const sleeper = jobStart("sleep 1000 & sleep 1000");
    head.send(nodeId, { $case: "startJob", value: sleeper });
    await jobNews(head, sleeper, "running");
    head.send(nodeId, { $case: "stopJob", value: { jobId: sleeper.spec?.jobId ?? "", graceMs: 2_000 } });
    expect(await jobNews(head, sleeper, "ended")).toMatchObject({ stopped: true });

    await start(head, nodeId, actorStart());
    daemon.process.kill("SIGINT");
    expect(await daemon.exited).toBe(0);
    expect(await machine.processes()).toEqual([]);
    expect([existsSync(machine.socketDir), existsSync(machine.storeDir)]).toEqual([false, false]);
    expect(head.all("goodbye").length).toBe(1);
  });

  it("dies, and the next one takes its actors and drivers over, pids unchanged", async () => {
    await using machine = new Machine();
    await using head = await scriptedHead({ clusterId: machine.clusterId });
    const first = machine.join(head.address);
    const { nodeId } = await hello(head);
    const kept = actorStart();
    const dies = actorStart();
    const alive = await start(head, nodeId, kept);
    const doomed = await start(head, nodeId, dies);
    const job = jobStart("sleep 1000");
    head.send(nodeId, { $case: "startJob", value: job });
    const { pid } = await jobNews(head, job, "running");
    const peer = await machine.connect(alive.socket);
    await peer.call("add", [1]);

    first.process.kill("SIGKILL");
    await first.exited;
    process.kill(doomed.pid, "SIGKILL");
    expect(await peer.call("add", [1])).toBe(7); // undisturbed by the daemon's death

    machine.join(head.address);
    const again = await hello(head, 2);
    expect(again).toMatchObject({ nodeId, incarnation: 2 });
    expect(again.actors).toMatchObject([{ spec: { actorId: kept.spec?.actorId }, incarnation: 1, pid: alive.pid, socket: alive.socket }]);
    expect(again.jobs).toMatchObject([{ pid, attempt: 1 }]);
    expect(again.endedActors).toMatchObject([
      { actorId: dies.spec?.actorId, state: { value: { death: { signal: "SIGKILL", reason: "WORKER_DIED" } } } },
    ]);
    expect(await peer.call("add", [1])).toBe(8);

    head.send(nodeId, {
      $case: "stopActor",
      value: { actorId: kept.spec?.actorId ?? "", incarnation: 1, graceMs: 2_000, reason: "KILLED" },
    });
    expect((await actorNews(head, kept, "gone")).death).toMatchObject({ reason: "KILLED", exitCode: 0 });

    // The daemon dies again, and this time it is only cleaned up after, without any head.
    process.kill(again.pid === 0 ? -1 : (await until("a second daemon", () => head.hellos[1])).pid, "SIGKILL");
    await head[Symbol.asyncDispose]();
    const stop = machine.run("stop");
    expect(await stop.exited, stop.output()).toBe(0);
    expect(await machine.processes()).toEqual([]);
    expect([existsSync(machine.socketDir), existsSync(machine.storeDir)]).toEqual([false, false]);
  });

  it("comes back by itself with --restart", async () => {
    await using machine = new Machine();
    await using head = await scriptedHead({ clusterId: machine.clusterId });
    const parent = machine.join(head.address, "--restart");
    const { nodeId, pid } = await hello(head);
    const alive = await start(head, nodeId, actorStart());
    process.kill(pid, "SIGKILL");
    expect((await hello(head, 2)).actors).toMatchObject([{ pid: alive.pid }]);
    parent.process.kill("SIGINT");
    expect(await parent.exited, parent.output()).toBe(0);
    expect(await machine.processes()).toEqual([]);
  });

  it.runIf(hasPython)("runs Python actors alike, and shares the machine with other daemons", async () => {
    await using machine = new Machine();
    await using head = await scriptedHead({ clusterId: machine.clusterId });
    const daemons = [machine.join(head.address), machine.join(head.address)];
    const nodes = [await hello(head), await hello(head, 2)];
    expect(new Set(nodes.map(({ nodeId }) => nodeId)).size).toBe(2);
    const module = fileURLToPath(new URL("fixtures/counter.py", import.meta.url));
    const [first, second] = nodes.map(({ nodeId }) => nodeId);
    const actor = actorStart({ host: "python", module, env: { MODE: "py" } });
    const alive = await start(head, first ?? "", actor);
    const peer = await machine.connect(alive.socket);
    expect(await peer.call("add", [2])).toBe(7);
    expect(await peer.call("where", [])).toEqual({ pid: alive.pid, cuda: "", job: actor.spec?.jobId, mode: "py" });
    const broken = actorStart({ host: "python", module, start: "fail" });
    head.send(second ?? "", { $case: "startActor", value: broken });
    expect((await actorNews(head, broken, "gone")).creationFailure.toString()).toMatch(/no such start/);
    const absent = actorStart({ host: "python", module, python: "/no/python" });
    head.send(second ?? "", { $case: "startActor", value: absent });
    expect((await actorNews(head, absent, "gone")).death).toMatchObject({
      exitCode: 127,
      stderrTail: [expect.stringMatching(/no\/python/)],
    });

    const leaving = daemons.find((daemon) => daemon.process.pid === nodes[1]?.pid);
    leaving?.process.kill("SIGTERM");
    expect(await leaving?.exited).toBe(0);
    expect(await peer.call("add", [1])).toBe(8); // the other node goes on
    const stop = machine.run("stop", "--all");
    expect(await stop.exited, stop.output()).toBe(0);
    expect(await machine.processes()).toEqual([]);
    expect([existsSync(machine.socketDir), existsSync(machine.storeDir)]).toEqual([false, false]);
  });

  it("outlives its head: calls go on, and the next head is told everything", async () => {
    await using machine = new Machine();
    const old = await scriptedHead({ clusterId: machine.clusterId });
    machine.join(old.address);
    const { nodeId } = await hello(old);
    const actor = actorStart();
    const alive = await start(old, nodeId, actor);
    const peer = await machine.connect(alive.socket);
    await old[Symbol.asyncDispose]();
    expect(await peer.call("add", [1])).toBe(6);
    await using head = await scriptedHead({ clusterId: machine.clusterId, port: Number(old.address.split(":")[1]), epoch: 2 });
    expect((await hello(head)).actors).toMatchObject([{ incarnation: 1, pid: alive.pid, socket: alive.socket }]);
    expect(await peer.call("add", [1])).toBe(7);
    head.send(nodeId, { $case: "shutdown", value: { graceMs: 1_000 } });
    await until("goodbye", () => head.all("goodbye").length > 0);
    await until("no process", async () => (await machine.processes()).length === 0);
  });

  it("ends a host that is stopped by a signal, after a silence", async () => {
    await using machine = new Machine();
    await using head = await scriptedHead({ clusterId: machine.clusterId });
    machine.join(head.address);
    const { nodeId } = await hello(head);
    const actor = actorStart();
    const alive = await start(head, nodeId, actor);
    process.kill(alive.pid, "SIGSTOP");
    const gone = await until(
      "the verdict",
      () => head.all("actor").flatMap(({ state }) => (state?.$case === "gone" ? [state.value] : []))[0],
      19_000,
    );
    expect(gone.death).toMatchObject({ reason: "WORKER_DIED", signal: "SIGKILL" });
    expect(gone.death?.message).toMatch(/stopped \(SIGSTOP\)/);
  }, 30_000);
});

describe("slime-worker", () => {
  it.each([
    [["join", "10.0.0.1:6380"], 78, /not loopback/],
    [["join", "nowhere"], 2, /host:port/],
    [["join", "127.0.0.1:1", "--wait", "0.2"], 69, /slime-head start/],
    [["join", "127.0.0.1:1", "--num-gpus", "x", "--labels", "y"], 78, /--num-gpus.*--labels/],
    [["join", "127.0.0.1:1", "--no-such-flag"], 2, /unknown option/],
    [["stop"], 0, /nothing to stop/],
    [["stop", "node_1"], 66, /slime-worker status/],
    [["status"], 0, /join/],
    [["join", "--help"], 0, /SLIME_HEAD_ADDRESS/],
  ] as const)("%j exits with %i and says what to do", async (args, code, message) => {
    await using machine = new Machine();
    const run = machine.run(...args);
    expect(await run.exited, run.output()).toBe(code);
    expect(run.output()).toMatch(message);
  });
});
