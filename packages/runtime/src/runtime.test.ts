import { getEventListeners } from "node:events";
import { SlimeError } from "@slime/core";
import { keptLog, virtualClock } from "@slime/core/testing";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type ActorHandle,
  actor,
  actorType,
  ctx,
  defineActors,
  free,
  gang,
  get,
  init,
  kv,
  nodes,
  ObjectRef,
  placementGroup,
  put,
  wait,
} from "./index.js";
import { type MemoryCluster, memoryCluster } from "./testing/index.js";

export class Counter {
  static readonly methodGroups = { later: "io" };
  total: number;
  constructor(start = 0) {
    if (start < 0) throw new RangeError("a counter starts at 0 or above");
    this.total = start;
  }
  add(n: number): number {
    this.total += n;
    return this.total;
  }
  async later(n: number): Promise<number> {
    await Promise.resolve();
    return this.add(n);
  }
  fail(): never {
    throw new TypeError("asked to fail", { cause: new Error("the reason") });
  }
  big(n: number): Float32Array {
    return new Float32Array(n).fill(1);
  }
  sum(values: Float32Array): number {
    return values.reduce((a, b) => a + b, 0);
  }
  async inner(box: { ref: ObjectRef<number> }): Promise<{ isRef: boolean; value: number }> {
    return { isRef: box.ref instanceof ObjectRef, value: await get(box.ref) };
  }
  async callOther(other: ActorHandle<Counter>, n: number): Promise<number> {
    return other.add(n);
  }
  waitForAbort(): Promise<string> {
    ctx().phase("waiting", { waitingFor: "an abort" });
    const call = ctx().call;
    return new Promise((_, reject) => {
      call?.signal.addEventListener("abort", () => {
        this.total = -1;
        reject(call.signal.reason);
      });
    });
  }
  /** Looks at the call's signal, as whoever starts work under it does. */
  async peek(): Promise<boolean> {
    const signal = ctx().call?.signal;
    await Promise.resolve();
    return signal?.aborted ?? false;
  }
  listeners(): number {
    return getEventListeners(ctx().signal, "abort").length;
  }
  health(): string {
    return "ok";
  }
  ids(): { actorId: string; incarnation: number; rank: number | null } {
    const { actorId, incarnation, rank } = ctx();
    return { actorId, incarnation, rank };
  }
  _hidden(): number {
    return 1;
  }
}
defineActors(import.meta.url, { Counter });

let cluster: MemoryCluster;
const clock = virtualClock();
beforeEach(() => {
  cluster = memoryCluster({ clock });
});
afterEach(async () => {
  await cluster[Symbol.asyncDispose]();
});

describe("calls", () => {
  it("the page that users read: handle at once, refs as arguments, three ways to call", async () => {
    const counter = actor(Counter, { args: [0], resources: { CPU: 1 } });
    const total = counter.add.remote(5);
    const again = counter.add.remote(total);
    expect(await get(total, { timeoutMs: 1_000 })).toBe(5);
    expect(await get(again)).toBe(10);
    expect(await counter.add(5)).toBe(15);
    counter.add.send(1);
    expect(await counter.add.options({ timeoutMs: 500 })(0)).toBe(16);
    expect(await counter.later(1)).toBe(17);
    expect(await get([total, again])).toEqual([5, 10]);
  });

  it("an error keeps name, message, cause and remote stack", async () => {
    const counter = actor(Counter);
    const error = await counter.fail().catch((e: unknown) => e);
    expect(SlimeError.is(error, "call.failed")).toBe(true);
    expect((error as Error).message).toContain("TypeError: asked to fail");
    expect((error as Error).stack).toContain("runtime.test.ts");
    expect(((error as Error).cause as Error).message).toContain("the reason");
    await expect(get(counter.fail.remote())).rejects.toMatchObject({ code: "call.failed" });
  });

  it("a constructor's error reaches ready() and every call", async () => {
    const counter = actor(Counter, { args: [-1] });
    const early = counter.add(1).catch((e: unknown) => e);
    await expect(counter.ready()).rejects.toMatchObject({ code: "actor.creation" });
    const error = (await early) as Error;
    expect(error).toMatchObject({ code: "actor.creation" });
    expect((error.cause as Error).message).toContain("a counter starts at 0");
    expect(counter.state().state).toBe("DEAD");
    await expect(counter.add(1)).rejects.toMatchObject({ code: "actor.creation" });
  });

  it("methods that are not there, private ones and hooks are refused by name", async () => {
    const counter = actor(Counter) as unknown as {
      nope(): Promise<void>;
      add: (n: number) => Promise<number>;
      _hidden?: unknown;
      then?: unknown;
    };
    await expect(counter.nope()).rejects.toMatchObject({ code: "actor.no_method", details: { method: "nope" } });
    expect(counter._hidden).toBeUndefined();
    expect(counter.then).toBeUndefined();
  });

  it("large values travel through the store and are given back where nobody holds them", async () => {
    const counter = actor(Counter);
    const values = new Float32Array(100_000).fill(2);
    expect(await counter.sum(values)).toBe(200_000);
    expect((await counter.big(100_000)).length).toBe(100_000);
    expect(cluster.objects()).toBe(0);
    const ref = counter.big.remote(100_000);
    expect(await counter.sum(ref)).toBe(100_000);
    expect(cluster.objects()).toBe(1);
    await free(ref);
    expect(cluster.objects()).toBe(0);
    await expect(get(ref)).rejects.toMatchObject({ code: "object.lost" });
  });

  it("refs in containers stay refs; handles travel", async () => {
    const counter = actor(Counter);
    const other = actor(Counter, { args: [100] });
    expect(await counter.inner({ ref: counter.add.remote(3) })).toEqual({ isRef: true, value: 3 });
    expect(await counter.callOther(other, 5)).toBe(105);
    const unborn = actor(Counter, { args: [7] });
    expect(await counter.callOther(unborn, 1)).toBe(8);
    const box = await get(await put({ ref: await put(4), counter }));
    expect(await get(box.ref)).toBe(4);
    expect(await box.counter.add(0)).toBe(3);
    const stored = await put(new Float32Array(100_000));
    expect(await counter.sum(stored)).toBe(0);
    await expect(put(stored as never)).rejects.toMatchObject({ code: "config.invalid" });
  });

  it("a ref whose call failed fails the call it is given to, with the same error", async () => {
    const counter = actor(Counter);
    const bad = counter.fail.remote() as unknown as ObjectRef<number>;
    await expect(counter.add(bad)).rejects.toMatchObject({ code: "call.failed" });
    expect(await counter.add(1)).toBe(1);
  });

  it("a waiting call keeps the arguments of the moment it was made", async () => {
    const counter = actor(Counter);
    const values = new Float32Array([1, 2]);
    const sum = counter.sum(values);
    values.fill(50);
    expect(await sum).toBe(3);
  });

  it("wait splits in order; get of a late value says whom it waited for", async () => {
    const counter = actor(Counter);
    await counter.ready();
    cluster.stall(counter);
    const slow = counter.add.remote(1);
    const quick = await put(7);
    expect(await wait([slow, quick])).toEqual({ ready: [quick], notReady: [slow] });
    const late = get(slow, { timeoutMs: 45_000 }).catch((e: unknown) => e);
    await clock.run(50_000);
    const error = (await late) as Error;
    expect(error).toMatchObject({ code: "call.deadline" });
    expect(error.message).toMatch(/Counter add ALIVE/);
    cluster.stall(counter, false);
    expect(await get(slow)).toBe(1);
  });
});

describe("cancellation and deadlines", () => {
  it("an aborted signal rejects the caller and reaches the method", async () => {
    const counter = actor(Counter);
    await counter.ready();
    const controller = new AbortController();
    const waiting = counter.waitForAbort
      .options({ signal: controller.signal })()
      .catch((e: unknown) => e);
    await clock.run(1);
    controller.abort();
    expect(await waiting).toMatchObject({ code: "call.cancelled" });
    expect(await counter.add(0)).toBe(-1);
  });

  it("a call that cannot start in time fails with whom it waited for", async () => {
    const counter = actor(Counter);
    await counter.ready();
    const blocked = counter.waitForAbort
      .options({ timeoutMs: 100 })()
      .catch((e: unknown) => e);
    const behind = counter.add
      .options({ timeoutMs: 50 })(1)
      .catch((e: unknown) => e);
    await clock.run(60);
    expect(await behind).toMatchObject({ code: "call.deadline" });
    expect(await counter.health()).toBe("ok");
    await clock.run(60);
    expect(await blocked).toMatchObject({ code: "call.deadline" });
  });
});

describe("room", () => {
  it("a caller's bound refuses with actor.busy; health and abort pass", async () => {
    const counter = actor(Counter, { pendingCallsMax: 2 });
    await counter.add(0);
    const controller = new AbortController();
    const waiting = [1, 2].map(() =>
      counter.waitForAbort
        .options({ signal: controller.signal })()
        .catch((e: unknown) => e),
    );
    await expect(counter.add(1)).rejects.toMatchObject({ code: "actor.busy", details: { pending: 2, pendingMax: 2 } });
    expect(() => counter.add.send(1)).toThrow(/actor.busy/);
    expect(await counter.health()).toBe("ok");
    controller.abort();
    await Promise.all(waiting);
    expect(await counter.add(0)).toBe(-1);
  });

  it("named groups have their own room: by the class's methodGroups, or by the call", async () => {
    const counter = actor(Counter, { concurrencyGroups: { io: 1 } });
    await counter.add(0);
    const controller = new AbortController();
    const blocked = counter.waitForAbort
      .options({ signal: controller.signal })()
      .catch((e: unknown) => e);
    expect(await counter.later(1)).toBe(1);
    expect(await counter.add.options({ concurrencyGroup: "io" })(1)).toBe(2);
    await expect(counter.add.options({ concurrencyGroup: "nope" })(1)).rejects.toMatchObject({ code: "config.invalid" });
    controller.abort();
    await blocked;
  });

  it("after 30 s a get says whom it waits for, and in which phase that is", async () => {
    await cluster[Symbol.asyncDispose]();
    const { log, lines } = keptLog();
    cluster = memoryCluster({ clock, log });
    const counter = actor(Counter, { name: "trainer-0" });
    const controller = new AbortController();
    const ref = counter.waitForAbort.options({ signal: controller.signal }).remote();
    const waiting = get(ref).catch((e: unknown) => e);
    await clock.run(31_000);
    const line = lines.find(({ event }) => event === "runtime.waiting");
    expect(line?.fields).toMatchObject({
      className: "Counter",
      method: "waitForAbort",
      state: "ALIVE",
      phase: "waiting",
      waitsFor: "an abort",
      running: ["waitForAbort"],
    });
    controller.abort();
    expect(await waiting).toMatchObject({ code: "call.cancelled" });
  });
});

describe("whom a driver waits for", () => {
  it("a call of an actor that does not come up is told after 5 s, once for all that wait, then every 30 s", async () => {
    await cluster[Symbol.asyncDispose]();
    const { log, lines } = keptLog();
    cluster = memoryCluster({ clock, log, loadClass: () => new Promise(() => {}) });
    const counter = actor(actorType<typeof Counter>({ module: "file:///never.js", export: "Never" }), { name: "slow" });
    const calls = [counter.add(1), counter.add(2)].map((call) => call.catch((error: unknown) => error));
    await clock.run(4_900);
    expect(lines.filter(({ event }) => event === "runtime.waiting")).toEqual([]);
    await clock.run(200);
    const said = lines.filter(({ event }) => event === "runtime.waiting");
    expect(said.map(({ fields }) => fields)).toMatchObject([
      { for: expect.stringContaining("so that it can be asked for add; it is PENDING_CREATION"), calls: 2, waitedMs: 5_000 },
    ]);
    await clock.run(31_000);
    expect(lines.filter(({ event }) => event === "runtime.waiting")).toHaveLength(2);
    await counter.kill();
    await Promise.all(calls);
  });

  it("init() in an actor's process names the cause: class and driver in one file", async () => {
    process.env["SLIME_ACTOR_ID"] = "actor_00000000000000aa";
    try {
      await expect(init()).rejects.toThrow(/in the process of actor_00000000000000aa.*a file of their own/);
    } finally {
      delete process.env["SLIME_ACTOR_ID"];
    }
    await expect(init()).rejects.toThrow(/called twice/);
  });

  it("calls that looked at their signal leave no listener behind", async () => {
    const counter = actor(Counter);
    const before = await counter.listeners();
    for (let n = 0; n < 20; n++) await counter.peek.options({ idempotencyKey: `k${n}` })();
    expect(await counter.listeners()).toBe(before);
  });
});

describe("lives", () => {
  it("a call in flight at a death is unavailable when the actor restarts, repeated with retries, and final when it is dead", async () => {
    const counter = actor(Counter, { maxRestarts: 1 });
    await counter.ready();
    const seen: string[] = [];
    counter.onStateChange(({ state }) => void seen.push(state));
    await counter.add(0);
    const lost = counter.waitForAbort().catch((e: unknown) => e);
    const kept = counter.ids
      .options({ retries: 1 })()
      .catch((e: unknown) => e);
    await clock.run(1);
    await cluster.crash(counter);
    expect(await lost).toMatchObject({ code: "actor.unavailable" });
    expect(((await lost) as Error).message).toContain("SIGKILL");
    expect(await kept).toMatchObject({ incarnation: 2 });
    expect(await counter.add(1)).toBe(1);
    await cluster.crash(counter);
    await expect(counter.add(1)).rejects.toMatchObject({ code: "actor.died", details: { death: { signal: "SIGKILL" } } });
    expect([...new Set(seen)]).toEqual(["RESTARTING", "ALIVE", "DEAD"]);
    expect(counter.state()).toMatchObject({ state: "DEAD", restarts: 1, incarnation: 2 });
  });

  it("a broken connection to a living actor: without retries unavailable, with retries one execution", async () => {
    const counter = actor(Counter);
    await counter.add(0);
    cluster.stall(counter);
    const plain = counter.add(1).catch((e: unknown) => e);
    const retried = counter.add.options({ retries: 3 })(10);
    await clock.run(1);
    cluster.cut(counter);
    cluster.stall(counter, false);
    await clock.run(5_000);
    expect(await plain).toMatchObject({ code: "actor.unavailable" });
    expect(await retried).toBe(11);
    expect(await counter.add(0)).toBe(11);
  });

  it("kill ends it for good", async () => {
    const counter = actor(Counter, { maxRestarts: -1 });
    await counter.add(1);
    await counter.kill();
    expect(counter.state()).toMatchObject({ state: "DEAD", death: { reason: "KILLED" } });
    await expect(counter.add(1)).rejects.toMatchObject({ code: "actor.died" });
  });
});

describe("gangs and groups", () => {
  it("one call goes to every rank; results by rank; each gives arguments by rank", async () => {
    const ranks = gang(Counter, { bundles: [{ CPU: 1 }, { CPU: 1 }, { CPU: 1 }], argsOf: (rank) => [rank * 10] });
    await ranks.ready();
    expect(await ranks.all.add(1)).toEqual([1, 11, 21]);
    expect(await ranks.all.add.each((rank) => [rank])).toEqual([1, 12, 23]);
    expect((await ranks.all.ids()).map(({ rank }) => rank)).toEqual([0, 1, 2]);
    await ranks.kill();
  });

  it("a repeated op id returns the recorded results, other ids run", async () => {
    const ranks = gang(Counter, { size: 2, argsOf: () => [0] });
    expect(await ranks.all.add.options({ opId: "op_1" })(5)).toEqual([5, 5]);
    expect(await ranks.all.add.options({ opId: "op_1" })(5)).toEqual([5, 5]);
    expect(await ranks.all.add.options({ opId: "op_2" })(5)).toEqual([10, 10]);
  });

  it("one rank's failure fails the op, says which, and stops the others", async () => {
    const ranks = gang(Counter, { size: 3, argsOf: () => [0] });
    await ranks.ready();
    const op = ranks.all.waitForAbort().catch((e: unknown) => e);
    await clock.run(1);
    await cluster.crash(ranks.ranks[1] as ActorHandle<Counter>);
    const error = await op;
    expect(error).toMatchObject({ code: "gang.rank_failed", details: { failedRanks: [1] } });
    expect((error as Error).cause).toMatchObject({ code: "actor.died" });
    await clock.run(1);
    expect(await (ranks.ranks[0] as ActorHandle<Counter>).add(0)).toBe(-1);
  });

  it("a placement group answers in rank order and can be removed", async () => {
    const group = placementGroup({ bundles: [{ CPU: 1 }, { CPU: 1 }], strategy: "SPREAD" });
    expect((await group.ready()).map(({ bundle }) => bundle)).toEqual([0, 1]);
    const inside = actor(Counter, { placementGroup: group, bundle: 1 });
    await inside.ready();
    await group.remove();
    await expect(inside.add(1)).rejects.toMatchObject({ code: "actor.died", details: { death: { reason: "PLACEMENT_REMOVED" } } });
    await expect(group.ready()).rejects.toMatchObject({ code: "placement.removed" });
  });
});

describe("the rest of the surface", () => {
  it("kv and nodes", async () => {
    expect(await kv.put("a/b", "x")).toEqual({ found: false });
    expect(await kv.put("a/b", "y", { ifAbsent: true })).toEqual({ found: true });
    expect(Buffer.from((await kv.get("a/b")) ?? []).toString()).toBe("x");
    expect(await kv.list("a/")).toEqual(["a/b"]);
    await kv.delete("a/b");
    expect(await kv.get("a/b")).toBeNull();
    expect(await nodes()).toHaveLength(1);
  });

  it("classes without a home, names that hide, and impossible options are refused with the fix", () => {
    class Homeless {}
    class Hidden {
      kill() {}
    }
    defineActors(import.meta.url, { Hidden });
    expect(() => actor(Homeless)).toThrow(/defineActors\(import.meta.url, \{ Homeless \}\)/);
    expect(() => actor(Hidden)).toThrow(/rename the method/);
    expect(() => actor(Counter, { concurrency: 0 })).toThrow(/concurrency/);
    expect(() => gang(Counter, {})).toThrow(/give size/);
  });
});
