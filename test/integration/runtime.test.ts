/** What users call, against a real head, daemon and hosts, each a process; actors, the daemon and the head are killed. Uses the build. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { DeathRecord, SlimeError } from "@slime/core";
import { until } from "@slime/platform/testing";
import {
  type ActorHandle,
  actor,
  free,
  gang,
  get,
  init,
  kv,
  nodes,
  placementGroup,
  put,
  pythonActor,
  type Session,
  wait,
} from "@slime/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Counter } from "./fixtures/counter.js";
import { type HeadProcess, headProcess } from "./head-process.js";
import { type Daemon, Machine } from "./node-fixture.js";

const hasPython = spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]).status === 0;
const caught = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    (value) => value,
    (error: unknown) => error,
  );

let machine: Machine;
let head: HeadProcess;
let daemon: Daemon;
let session: Session;

beforeAll(async () => {
  head = await headProcess();
  machine = new Machine(head.clusterId);
  process.env["SLIME_STORE_DIR"] = machine.storeDir;
  daemon = machine.join(head.address, "--num-cpus", "8", "--num-gpus", "2");
  session = await init({ address: head.address });
  await until("a node", async () => (await nodes())[0]?.state === "ALIVE");
}, 60_000);
afterAll(async () => {
  await session[Symbol.asyncDispose]();
  await machine[Symbol.asyncDispose]();
  await head[Symbol.asyncDispose]();
  delete process.env["SLIME_STORE_DIR"];
}, 60_000);

describe("actors in real hosts", () => {
  it("calls, references, large values and handles travel; env, GPUs and ids arrive", async () => {
    const counter = actor(Counter, { args: [0], env: { COUNTER_ENV: "here" }, resources: { CPU: 0.5, GPU: 1 } });
    const total = counter.add.remote(5);
    const again = counter.add.remote(total);
    expect(await get([total, again], { timeoutMs: 30_000 })).toEqual([5, 10]);
    counter.add.send(1);
    expect(await counter.add(0)).toBe(11);
    expect(await counter.who()).toMatchObject({ incarnation: 1, env: "here", call: "who", pid: counter.state().pid });
    const values = await put(new Float32Array(1_000_000).fill(2));
    expect(await counter.sum(values)).toBe(2_000_000);
    const filled = counter.fill.remote(1_000_000);
    expect((await wait([filled])).ready).toEqual([filled]);
    expect(await counter.sum(filled)).toBe(1_000_000);
    await free([values, filled]);
    expect(await caught(get(filled))).toMatchObject({ code: "object.lost" });
    const other = actor(Counter, { args: [100] });
    expect(await counter.callOther(other, 5)).toBe(105);
    expect(await counter.hasRef({ ref: await put(3) })).toBe("ObjectRef");
    await Promise.all([counter.kill(), other.kill()]);
    expect(counter.state()).toMatchObject({ state: "DEAD", death: { reason: "KILLED" } });
  });

  it("a constructor's error comes back with its remote stack, a missing export with what there is", async () => {
    const broken = actor(Counter, { args: [-1] });
    const error = (await caught(broken.ready())) as Error;
    expect(error).toMatchObject({ code: "actor.creation" });
    expect((error.cause as Error).message).toContain("a counter starts at 0 or above");
    expect((error.cause as Error).stack).toContain("counter.ts");
    expect(await caught(broken.add(1))).toMatchObject({ code: "actor.creation" });
  });

  it("killed with -9: the call in flight says how, calls wait for the next life; past its restarts the death is final", async () => {
    const counter = actor(Counter, { args: [0], maxRestarts: 1 });
    const first = await counter.who();
    const hanging = caught(counter.hang());
    await counter.health();
    process.kill(first.pid, "SIGKILL");
    const lost = (await hanging) as Error;
    expect(lost).toMatchObject({ code: "actor.unavailable" });
    expect(lost.message).toContain("SIGKILL");
    const second = await counter.who();
    expect(second).toMatchObject({ incarnation: 2 });
    expect(second.pid).not.toBe(first.pid);
    counter.exit.send(3);
    const died = (await caught(counter.hang())) as SlimeError<"actor.died">;
    expect(died).toMatchObject({ code: "actor.died" });
    const death: DeathRecord = died.details.death;
    expect(death).toMatchObject({ exitCode: 3, pid: second.pid });
    expect(death.stderrTail.join("\n")).toContain("leaving on purpose");
  });

  it("gangs: ranks in their places, one op to all, a dead rank fails it by number", async () => {
    const ranks = gang(Counter, {
      bundles: [{ CPU: 0.1 }, { CPU: 0.1 }, { CPU: 0.1 }],
      resources: { CPU: 0.1 },
      argsOf: (rank) => [rank],
      name: "ranks",
    });
    await ranks.ready();
    expect((await ranks.all.who()).map(({ rank }) => rank)).toEqual([0, 1, 2]);
    expect(await ranks.all.add.options({ opId: "op_a" })(1)).toEqual([1, 2, 3]);
    expect(await ranks.all.add.options({ opId: "op_a" })(1)).toEqual([1, 2, 3]);
    const op = caught(ranks.all.hang());
    const [, middle] = await ranks.all.health().then(() => ranks.ranks);
    process.kill((middle as ActorHandle<Counter>).state().pid ?? 0, "SIGKILL");
    expect(await op).toMatchObject({ code: "gang.rank_failed", details: { failedRanks: [1] } });
    await ranks.kill();
  });

  it("a placement group that can never fit fails with the numbers; tables name GPUs", async () => {
    expect(await caught(placementGroup({ bundles: [{ GPU: 5 }], strategy: "STRICT_PACK" }).ready())).toMatchObject({
      code: "placement.infeasible",
    });
    const group = placementGroup({ bundles: [{ GPU: 1 }, { GPU: 1 }] });
    expect((await group.ready()).map(({ gpuIndex }) => gpuIndex)).toEqual([0, 1]);
    await group.remove();
  });

  it("an actor makes another, hands it out, and exits on its own; the other stays", async () => {
    const maker = actor(Counter, { args: [0] });
    const { made } = await maker.make(7);
    expect(await made.add(1)).toBe(8);
    await maker.leave();
    await until("the maker's end", () => maker.state().state === "DEAD");
    expect(await caught(maker.add(1))).toMatchObject({ code: "actor.died" });
    expect(await made.add(1)).toBe(9);
    await made.kill();
  });

  it("a driver of its own: its job ends with it, its actors too, and its process ends by itself", async () => {
    const driver = spawn(process.execPath, [fileURLToPath(new URL("fixtures/driver.mjs", import.meta.url))], {
      env: { ...process.env, SLIME_HEAD_ADDRESS: head.address },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let output = "";
    driver.stdout.on("data", (data: Buffer) => (output += data.toString()));
    expect(await once(driver, "exit")).toEqual([0, null]);
    const { pid, total } = JSON.parse(output) as { pid: number; total: number };
    expect(total).toBe(7);
    await until("the actor's end", () => !existsSync(`/proc/${pid}`));
  });

  it.skipIf(!hasPython)("a Python actor is called like any other", async () => {
    const module = fileURLToPath(new URL("fixtures/counter.py", import.meta.url));
    const counter = actor(pythonActor<{ add(by: number): number }, [start: number]>({ module, className: "Counter" }), { args: [5] });
    expect(await counter.add(2)).toBe(7);
    expect(await get(counter.add.remote(counter.add.remote(1)))).toBe(16);
    await counter.kill();
  });
});

describe("others die", () => {
  it("the head: calls go on while it is away; then the job, actors and kv are as before", async () => {
    const counter = actor(Counter, { args: [0] });
    await counter.add(1);
    await kv.put("before", "yes");
    await head.kill();
    expect(await counter.add(1)).toBe(2);
    const born = actor(Counter, { args: [50] });
    const early = born.add(1);
    await head.restart();
    expect(await early).toBe(51);
    expect(Buffer.from((await kv.get("before")) ?? []).toString()).toBe("yes");
    await Promise.all([counter.kill(), born.kill()]);
  });

  it("the daemon: actors live on under the same pid, the next daemon adopts them", async () => {
    const counter = actor(Counter, { args: [0], maxRestarts: 5 });
    const { pid } = await counter.who();
    daemon.process.kill("SIGKILL");
    await daemon.exited;
    expect(await counter.add(1)).toBe(1);
    daemon = machine.join(head.address, "--num-cpus", "8", "--num-gpus", "2");
    await until("adoption", async () =>
      (await nodes()).some(({ state, pid: daemonPid }) => state === "ALIVE" && daemonPid === daemon.process.pid),
    );
    expect(await counter.who()).toMatchObject({ pid, incarnation: 1 });
    await counter.kill();
    expect(counter.state()).toMatchObject({ state: "DEAD", restarts: 0 });
  });
});
