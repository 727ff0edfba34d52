import { seededRandom, silentLogger } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import { type Head, memoryDisk, memoryStore, openHead } from "@slime/head";
import { fakeDaemon, specOf } from "@slime/head/testing";
import { keptEvents } from "@slime/telemetry/testing";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ActorView } from "../actor-view.js";
import { createPlacementGroup } from "../placement-group.js";
import { createRuntime, type Runtime } from "../runtime.js";
import { type ControlClient, controlClient } from "./control-client.js";
import type { ControlDialer } from "./control-link.js";

// The client against the real head's state machine, in memory, on virtual time.
const clock = virtualClock();
const random = seededRandom(5);
let disk: ReturnType<typeof memoryDisk>;
let head: Head | null;
let broken: (() => void)[];
let client: ControlClient;
let runtime: Runtime;

const start = () => openHead({ store: memoryStore(disk, async () => {}), clock, random, log: silentLogger, events: keptEvents().sink });

const dialer: ControlDialer = {
  address: "memory",
  open({ onBatch, onEnd }) {
    const to = head;
    if (to === null) {
      queueMicrotask(() => onEnd("connection refused"));
      return { write() {}, end() {} };
    }
    const inlet = to.openClient({
      send: (message) => onBatch({ epoch: to.epoch, messages: [message] }),
      close: () => onEnd("closed by the head"),
    });
    broken.push(() => onEnd("connection reset"));
    return { write: (batch) => inlet.receive(batch), end: () => inlet.closed() };
  },
  close() {},
};

beforeEach(async () => {
  disk = memoryDisk();
  broken = [];
  head = await start();
  client = controlClient({
    dialer,
    hello: { protocol: 1, clusterId: "", jobId: null, actorId: "", pid: 1, version: "0.1.0", nodeId: "", bootId: "boot" },
    exitCode: () => 0,
    clock,
    random,
    log: silentLogger,
  });
  const { clusterId, jobId } = await client.welcome();
  runtime = createRuntime({
    jobId,
    hello: { clusterId, who: { kind: "driver", id: "proc_1", incarnation: 0, pid: 1 } },
    control: async () => client,
    connect: () => Promise.reject(new Error("nobody listens in this test")),
    store: () => ({
      put: () => Promise.reject(new Error("no store")),
      get: () => Promise.reject(new Error("no store")),
      free: async () => {},
    }),
    clock,
    random,
    log: silentLogger,
  });
});
afterEach(async () => {
  await runtime.close();
  await head?.close();
});

async function killHead(): Promise<void> {
  await clock.run(10);
  await head?.close();
  head = null;
  for (const cut of broken.splice(0)) cut();
}

describe("against the head", () => {
  it("an actor's life as it is heard: placed, alive, restarting, alive, dead with how", async () => {
    const daemon = fakeDaemon({ nodeId: "node_0000000000000001", clock });
    daemon.connect(head as Head);
    const seen: ActorView[] = [];
    const actorId = "actor_0000000000000001";
    await client.createActor(specOf({ actorId, jobId: runtime.parts.jobId, restartsMax: 1 }));
    client.followActor(actorId, (view) => seen.push(view));
    await clock.run(10);
    expect(seen.at(-1)).toMatchObject({ state: "ALIVE", incarnation: 1, creationFailure: null, death: null });
    daemon.die(actorId);
    await clock.run(1_000);
    expect(seen.at(-1)).toMatchObject({ state: "ALIVE", incarnation: 2, restarts: 1, death: { signal: "SIGKILL" } });
    expect(seen.map(({ state }) => state)).toContain("RESTARTING");
    await client.killActor({ actorId, graceMs: 100, noRestart: true });
    await clock.run(1_000);
    expect(seen.at(-1)).toMatchObject({ state: "DEAD", death: { reason: "KILLED" } });
  });

  it("a placement group: waits for what it lacks, is placed in rank order when a node comes, never fits at once", async () => {
    fakeDaemon({ nodeId: "node_0000000000000001", clock, gpus: 1, address: "127.0.0.1" }).connect(head as Head);
    await clock.run(10);
    const never = createPlacementGroup(runtime, { bundles: [{ GPU: 3 }], strategy: "STRICT_PACK", name: "never" });
    await expect(never.ready()).rejects.toMatchObject({ code: "placement.infeasible" });
    const first = createPlacementGroup(runtime, { bundles: [{ GPU: 1 }] });
    await first.ready();
    const waiting = createPlacementGroup(runtime, { bundles: [{ GPU: 1 }], name: "next" });
    const reasons: (readonly string[])[] = [];
    const late = waiting.ready({ timeoutMs: 1_000, onWaiting: (why) => reasons.push(why) }).catch((error: unknown) => error);
    await clock.run(2_000);
    expect(await late).toMatchObject({ code: "placement.waiting" });
    expect(reasons.flat().join(" ")).toMatch(/GPU/);
    const placed = waiting.ready();
    await first.remove();
    await clock.run(1_000);
    expect(await placed).toMatchObject([
      { bundle: 0, nodeId: "node_0000000000000001", address: "127.0.0.1", gpuIndex: 0, gpuUuid: "node_0000000000000001-gpu-0" },
    ]);
    await expect(first.ready()).rejects.toMatchObject({ code: "placement.removed" });
  });

  it("the head may die and come back: the job, actors and kv are the same; requests made meanwhile are answered", async () => {
    const daemon = fakeDaemon({ nodeId: "node_0000000000000001", clock });
    daemon.connect(head as Head);
    const actorId = "actor_0000000000000002";
    const seen: string[] = [];
    await client.createActor(specOf({ actorId, jobId: runtime.parts.jobId }));
    client.followActor(actorId, ({ state }) => seen.push(state));
    await client.kvPut({ key: "k", value: Buffer.from("v"), ifAbsent: false });
    await killHead();
    daemon.disconnect();
    const value = client.kvGet("k");
    await clock.run(2_000);
    head = await start();
    daemon.connect(head);
    await clock.run(3_000);
    expect(Buffer.from((await value) ?? []).toString()).toBe("v");
    expect((await client.nodes()).map(({ state }) => state)).toEqual(["ALIVE"]);
    daemon.die(actorId);
    await clock.run(1_000);
    expect(seen.at(-1)).toBe("DEAD");
  });
});
