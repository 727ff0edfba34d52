import { SlimeError } from "@slime/core";
import { keptLog, virtualClock } from "@slime/core/testing";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { openPeer } from "./peer.js";
import type { IncomingCall, Peer } from "./peer-api.js";
import { memoryPair, peerPair, testHello } from "./testing/index.js";

const echo = (call: IncomingCall) => call.args;
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "done",
    (error: unknown) => (SlimeError.isAny(error) ? error.code : String(error)),
  );

describe("calls", () => {
  test("go both ways, sync and async handlers alike", async () => {
    const { a, b } = await peerPair(virtualClock(), {
      a: { handler: (call) => `a:${call.method}` },
      b: { handler: async (call) => `b:${call.method}` },
    });
    expect(await Promise.all([a.call("x", []), b.call("y", [])])).toEqual(["b:x", "a:y"]);
  });

  test("carry what the caller said", async () => {
    let seen: Partial<IncomingCall> = {};
    const { a } = await peerPair(virtualClock(), {
      b: {
        handler: ({ method, args, deadlineMs, traceId, idempotencyKey, urgent, wantsReply }) => {
          seen = { method, args, deadlineMs, traceId, idempotencyKey, urgent, wantsReply };
        },
      },
    });
    expect(await a.call("m", [1], { timeoutMs: 1500, traceId: "t", idempotencyKey: "k", urgent: true })).toBeUndefined();
    expect(seen).toEqual({ method: "m", args: [1], deadlineMs: 1500, traceId: "t", idempotencyKey: "k", urgent: true, wantsReply: true });
    await a.call("m", [1], { timeoutMs: null });
    expect(seen).toEqual({
      method: "m",
      args: [1],
      deadlineMs: null,
      traceId: null,
      idempotencyKey: null,
      urgent: false,
      wantsReply: true,
    });
  });

  test("R1: sends and calls arrive in their order", async () => {
    const order: unknown[] = [];
    const { a } = await peerPair(virtualClock(), { b: { handler: (call) => void order.push(call.args) } });
    a.send("s", 1);
    const first = a.call("c", 2);
    a.send("s", 3);
    await Promise.all([first, a.call("c", 4)]);
    expect(order).toEqual([1, 2, 3, 4]);
  });

  test("R2: a turn is one frame, and so are its results", async () => {
    const { a, wires } = await peerPair(virtualClock(), { b: { handler: async (call) => call.args } });
    const before = [wires.writes("ab").length, wires.writes("ba").length];
    await Promise.all(Array.from({ length: 500 }, (_, i) => a.call("m", [i])));
    expect([wires.writes("ab").length, wires.writes("ba").length]).toEqual([(before[0] ?? 0) + 1, (before[1] ?? 0) + 1]);
  });

  test("arguments are taken when the call is made", async () => {
    const { a } = await peerPair(virtualClock(), { b: { handler: echo } });
    const data = new Float32Array([1, 2, 3]);
    const result = a.call("m", [data]);
    data.fill(0);
    expect(await result).toEqual([new Float32Array([1, 2, 3])]);
  });

  test("a value that cannot be sent costs its own call, on either side", async () => {
    const { a } = await peerPair(virtualClock(), { b: { handler: (call) => (call.method === "bad" ? { at: [() => 1] } : call.args) } });
    const [refused, bad, fine] = await Promise.allSettled([a.call("m", [new Date(0)]), a.call("bad", []), a.call("m", ["fine"])]);
    expect(refused).toMatchObject({ reason: { code: "codec.refused", details: { where: "value[0]" } } });
    expect(bad).toMatchObject({ reason: { code: "codec.refused", details: { where: "value.at[0]" } } });
    expect(fine).toEqual({ status: "fulfilled", value: ["fine"] });
  });

  test("R4: a reference the callee does not know costs its own call", async () => {
    class Ref {}
    const hooks = {
      encodeSpecial: (value: object) => (value instanceof Ref ? { tag: "__ref", payload: 1 } : undefined),
      decodeSpecial: () => new Ref(),
    };
    const { a } = await peerPair(virtualClock(), { a: { hooks }, b: { handler: echo } });
    const [unknown, fine] = await Promise.allSettled([a.call("m", [new Ref(), 2]), a.call("m", [3])]);
    expect(unknown).toMatchObject({ reason: { code: "codec.refused" } });
    expect(fine).toEqual({ status: "fulfilled", value: [3] });
  });

  test("an error keeps what it is, and says where it was thrown", async () => {
    const { a } = await peerPair(virtualClock(), {
      b: {
        handler: () => {
          throw new SlimeError("object.lost", "gone", { objectId: "obj_1", reason: "freed" }, { cause: new TypeError("deep") });
        },
      },
    });
    const error = await a.call("m", []).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "object.lost",
      message: "[object.lost] gone",
      details: { objectId: "obj_1", reason: "freed" },
      cause: { code: "call.failed", message: "[call.failed] TypeError: deep" },
    });
    expect((error as Error).stack).toContain("peer.test.ts");
  });

  test("without a handler, every call is not_found", async () => {
    const { a } = await peerPair(virtualClock());
    expect(await codeOf(a.call("m", []))).toBe("not_found");
  });
});

describe("deadlines and cancellation", () => {
  test("a deadline fails the call here and aborts it there", async () => {
    const clock = virtualClock();
    let aborted: unknown;
    const { a } = await peerPair(clock, {
      b: {
        handler: (call) => {
          call.signal.addEventListener("abort", () => {
            aborted = call.signal.reason;
          });
          return new Promise(() => undefined);
        },
      },
    });
    const outcome = codeOf(a.call("slow", [], { timeoutMs: 100 }));
    await clock.run(99);
    expect(aborted).toBeUndefined();
    await clock.run(10);
    expect(await outcome).toBe("call.deadline");
    expect(aborted).toBeInstanceOf(SlimeError);
  });

  test("one timer serves them all, and many deadlines each fire in time", async () => {
    const clock = virtualClock();
    const { a } = await peerPair(clock, { a: { heartbeat: null }, b: { handler: () => new Promise(() => undefined), heartbeat: null } });
    const late: number[] = [];
    for (const timeoutMs of [500, 30, 200, 31, 60, 1000])
      void a.call("m", [], { timeoutMs }).catch(() => late.push(clock.nowMs() - timeoutMs));
    await settled();
    expect(clock.pending()).toBe(2); // one a side
    await clock.run(1100);
    expect(late).toHaveLength(6);
    for (const ms of late) expect(ms).toBeLessThanOrEqual(5);
    expect(clock.pending()).toBe(0);
  });

  test("an abort rejects at once with its reason and reaches the callee", async () => {
    let reason: unknown;
    const { a } = await peerPair(virtualClock(), {
      b: {
        handler: (call) =>
          new Promise((resolve) => {
            call.signal.addEventListener("abort", () => {
              reason = call.signal.reason;
              resolve("ignored");
            });
          }),
      },
    });
    const controller = new AbortController();
    const call = a.call("m", [], { signal: controller.signal });
    await settled();
    controller.abort(new Error("enough"));
    await expect(call).rejects.toThrow("enough");
    await settled();
    expect(reason).toMatchObject({ code: "call.cancelled" });
    await expect(a.call("m", [], { signal: controller.signal })).rejects.toThrow("enough");
  });
});

describe("the end", () => {
  test("R3: a cut fails what is pending, retryably, and aborts what runs", async () => {
    let signal: AbortSignal | undefined;
    const { a, b, wires } = await peerPair(virtualClock(), {
      b: {
        handler: (call) => {
          signal = call.signal;
          return new Promise(() => undefined);
        },
      },
    });
    const pending = a.call("m", []);
    const outcome = codeOf(pending);
    await settled();
    wires.cut("the cable");
    expect(await outcome).toBe("wire.broken");
    expect(await a.closed).toEqual({ kind: "broken", reason: "the cable" });
    expect((await b.closed).kind).toBe("broken");
    expect(signal?.aborted).toBe(true);
    expect(await codeOf(a.call("m", []))).toBe("wire.broken");
    expect(() => a.send("m", [])).toThrow(SlimeError);
  });

  test("close says goodbye; draining waits for what is in progress and admits no more", async () => {
    let finish: (value: string) => void = () => undefined;
    const { a, b } = await peerPair(virtualClock(), {
      b: {
        handler: () =>
          new Promise((resolve) => {
            finish = resolve;
          }),
      },
    });
    const pending = a.call("m", []);
    await settled();
    const closing = b.close({ drainMs: 1000, reason: "over" });
    const late = codeOf(a.call("late", []));
    expect(await late).toBe("wire.broken");
    finish("in time");
    expect(await pending).toBe("in time");
    await closing;
    expect(await a.closed).toEqual({ kind: "closed", reason: "over" });
    expect(await b.closed).toEqual({ kind: "closed", reason: "over" });
    await b.close();
  });

  test("draining ends at its budget", async () => {
    const clock = virtualClock();
    const { a, b } = await peerPair(clock, { b: { handler: () => new Promise(() => undefined) } });
    const outcome = codeOf(a.call("m", []));
    await settled();
    const closing = b.close({ drainMs: 50 });
    await clock.run(60);
    await closing;
    expect(await outcome).toBe("wire.broken");
  });

  test("a hung peer is noticed; a quiet one is not", async () => {
    const clock = virtualClock();
    const { a, b, wires } = await peerPair(clock, { b: { handler: () => new Promise(() => undefined) } });
    await clock.run(120_000);
    expect([a.ended, b.ended]).toEqual([false, false]);
    const outcome = codeOf(a.call("m", [], { timeoutMs: null }));
    wires.drop("ba");
    await clock.run(20_001);
    expect(await outcome).toBe("wire.broken");
    expect((await a.closed).reason).toMatch(/silent for/);
  });
});

describe("limits", () => {
  test("calls in flight", async () => {
    const { a } = await peerPair(virtualClock(), { a: { pendingCallsMax: 2 }, b: { handler: () => new Promise(() => undefined) } });
    void codeOf(a.call("m", []));
    void codeOf(a.call("m", []));
    expect(await codeOf(a.call("m", []))).toBe("wire.limit");
  });

  test("bytes that wait: calls are refused, the wire is not flooded, and all arrives after the stall", async () => {
    const { a, wires } = await peerPair(virtualClock(), {
      a: { outgoingBytesMax: 3_000_000 },
      b: { handler: (call) => (call.args as Uint8Array).length },
    });
    wires.stall("ab");
    const outcomes: Promise<string>[] = [];
    for (let i = 0; i < 5; i++) {
      outcomes.push(codeOf(a.call("m", new Uint8Array(800_000))));
      await settled();
    }
    wires.stall("ab", false);
    expect(await Promise.all(outcomes)).toEqual(["done", "done", "done", "wire.limit", "wire.limit"]);
    expect(await a.call("m", new Uint8Array(10))).toBe(10);
  });

  test("a result that does not fit is that call's failure", async () => {
    const { a } = await peerPair(virtualClock(), {
      b: { outgoingBytesMax: 1000, handler: (call) => (call.method === "big" ? "x".repeat(5000) : "small") },
    });
    expect(await codeOf(a.call("big", []))).toBe("wire.limit");
    expect(await a.call("small", [])).toBe("small");
  });

  test("a turn of many large messages is cut into frames", async () => {
    const { a, wires } = await peerPair(virtualClock(), { b: { handler: (call) => (call.args as Uint8Array).length } });
    const before = wires.writes("ab").length;
    const sizes = await Promise.all(Array.from({ length: 12 }, (_, i) => a.call("m", new Uint8Array(1_000_000 + i))));
    expect(sizes).toEqual(Array.from({ length: 12 }, (_, i) => 1_000_000 + i));
    expect(wires.writes("ab").length - before).toBeGreaterThan(2);
  });
});

describe("hello", () => {
  const clock = virtualClock();
  const open = (ours: Parameters<typeof openPeer>[1], theirs: Parameters<typeof openPeer>[1], accept: () => void = () => undefined) => {
    const wires = memoryPair(clock);
    return Promise.allSettled([openPeer(wires.a, ours), openPeer(wires.b, theirs, accept)]);
  };

  test("each side knows the other", async () => {
    const { a, b } = await peerPair(clock, { b: { hello: testHello("actor", "actor_0000000000000002") } });
    expect(a.remote.who).toEqual({ kind: "actor", id: "actor_0000000000000002", incarnation: 1, pid: 1 });
    expect(b.remote.who.kind).toBe("driver");
  });

  test("another cluster is incompatible, said on both sides", async () => {
    const results = await open({ hello: testHello(), clock }, { hello: { ...testHello(), clusterId: "cluster_0000000000000002" }, clock });
    for (const result of results) expect(result).toMatchObject({ status: "rejected", reason: { code: "peer.incompatible" } });
  });

  test("accept's refusal reaches the caller", async () => {
    const [caller] = await open({ hello: testHello(), clock }, { hello: testHello(), clock }, () => {
      throw new SlimeError("actor.stale", "a newer life has taken over", { actorId: "actor_1", incarnation: 1, current: 2 });
    });
    expect(caller).toMatchObject({ status: "rejected", reason: { code: "actor.stale", details: { current: 2 } } });
  });

  test("no hello in time", async () => {
    const time = virtualClock();
    const { a } = memoryPair(time);
    const opening = codeOf(openPeer(a, { hello: testHello(), clock: time }));
    await time.run(5001);
    expect(await opening).toBe("wire.broken");
  });

  test("what is no frame is refused, before memory is taken for it", async () => {
    for (const bytes of ["GET / HTTP/1.1\r\n\r\n", "\u0001\u0000\u0000\u0000"]) {
      const wires = memoryPair(clock);
      const opening = codeOf(openPeer(wires.b, { hello: testHello(), clock }, () => undefined));
      wires.a.start({ onData: () => undefined, onDrain: () => undefined, onEnd: () => undefined });
      wires.a.write([Buffer.from(bytes, "latin1")]);
      expect(["wire.limit", "codec.refused"]).toContain(await opening);
    }
  });

  test("frames tell the head's epoch", async () => {
    let epoch = 1;
    const seen: number[] = [];
    const { a, b } = await peerPair(clock, { a: { epoch: () => epoch }, b: { handler: echo, onEpoch: (each) => void seen.push(each) } });
    await a.call("m", []);
    epoch = 4;
    await a.call("m", []);
    expect(seen).toEqual([1, 4]);
    expect(b.remoteEpoch).toBe(4);
  });
});

test("a broken frame ends the connection, and is logged", async () => {
  const { log, lines } = keptLog();
  const wires = memoryPair(virtualClock());
  const clock = virtualClock();
  const opening = openPeer(wires.b, { hello: testHello(), clock, log, endOfTurn: queueMicrotask }, () => undefined);
  const a = await openPeer(wires.a, { hello: testHello(), clock, endOfTurn: queueMicrotask });
  const b = await opening;
  wires.a.write([Buffer.from("0e000000060000009401009091c1", "hex")]);
  expect((await b.closed).kind).toBe("broken");
  await a.closed;
  expect(lines.map((line) => line.event)).toEqual(["rpc.fault"]);
});

test("P1: under delays, aborts, deadlines and a cut, every call settles once, and fine results are right", async () => {
  const step = fc.record({
    kind: fc.constantFrom("call", "abort", "advance", "delay"),
    ms: fc.integer({ min: 0, max: 50 }),
    fails: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const clock = virtualClock();
      const { a, wires } = await peerPair(clock, {
        b: {
          handler: async (call) => {
            const [id, ms, fails] = call.args as [number, number, boolean];
            await new Promise<void>((resolve) => clock.after(ms, resolve));
            if (fails) throw new Error(`no ${id}`);
            return id;
          },
        },
      });
      const settlements: string[][] = [];
      const controllers: AbortController[] = [];
      for (const { kind, ms, fails } of steps) {
        if (kind === "call") {
          const id = settlements.push([]) - 1;
          const controller = new AbortController();
          controllers.push(controller);
          a.call("m", [id, ms, fails], { timeoutMs: 40, signal: controller.signal }).then(
            (value) => settlements[id]?.push(value === id && !fails ? "right" : "wrong"),
            (error: unknown) => settlements[id]?.push(error instanceof Error ? "failed" : "odd"),
          );
        } else if (kind === "abort") controllers[ms % Math.max(1, controllers.length)]?.abort(new Error("stop"));
        else if (kind === "delay") wires.delay(fails ? "ab" : "ba", ms);
        else await clock.run(ms);
      }
      wires.cut("over");
      await clock.run(200);
      for (const settlement of settlements) {
        expect(settlement).toHaveLength(1);
        expect(settlement[0]).not.toBe("wrong");
        expect(settlement[0]).not.toBe("odd");
      }
    }),
    { numRuns: 100, seed: 11 },
  );
});

test("closing within a handler stops the frame it came in", async () => {
  let peer: Peer | undefined;
  const { a, b } = await peerPair(virtualClock(), { b: { handler: () => peer?.close() } });
  peer = b;
  const outcomes = await Promise.all([codeOf(a.call("m", [])), codeOf(a.call("m", []))]);
  expect(outcomes).toEqual(["wire.broken", "wire.broken"]);
});
