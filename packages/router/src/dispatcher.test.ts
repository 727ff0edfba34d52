import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { defaultRouterLimits } from "./options.js";
import { type Asked, type Ending, type Sent, settle, dispatcherWorld as world } from "./testing/dispatcher-world.js";

const answer = (sent: Sent | undefined) => settle(sent, "answered");

describe("a request", () => {
  it("is tried elsewhere when an engine breaks before the first byte", async () => {
    const w = world();
    await w.add("a");
    await w.add("b");
    const { done, events } = w.ask("r");
    w.sent[0]?.settle({ kind: "broken", reason: "reset" });
    await w.clock.run(0);
    expect(w.sent.map(({ url }) => url)).toEqual(["http://a", "http://b"]);
    answer(w.sent[1]);
    expect(await done).toBe("served");
    expect(events).toEqual(["begin 200", "end"]);
    expect(w.dispatcher.counts).toMatchObject({ requests: 1, retries: 1, failures: 0 });
  });

  it("a connection that went stale is no mark against its engine", async () => {
    const w = world();
    await w.add("a");
    const { done } = w.ask("r");
    for (const i of [0, 1]) {
      w.sent[i]?.settle({ kind: "stale", reason: "closed" });
      await w.clock.run(0);
    }
    answer(w.sent[2]);
    expect(await done).toBe("served");
    expect(w.dispatcher.fleet.get("a")).toMatchObject({ errors: 0, broken: 0, inFlight: 0 });
  });

  it("a kept connection that closes long after the request was sent is a break, and its engine is asked who it is", async () => {
    const w = world();
    await w.add("a", "1");
    w.dispatcher.open("a", 1);
    const { done } = w.ask("r");
    await w.clock.run(defaultRouterLimits.staleMsMax + 1);
    // A restarted process answers at its address, with the weights of its checkpoint.
    w.alive.set("http://a", "0");
    settle(w.sent[0], "stale");
    await w.clock.run(10_000);
    expect(w.sent).toHaveLength(1);
    expect(w.dispatcher.fleet.get("a")).toMatchObject({ errors: 1, gate: { kind: "stale", found: "0" } });
    w.alive.set("http://a", "1");
    await w.dispatcher.probe("a");
    await w.clock.run(0);
    answer(w.sent[1]);
    expect(await done).toBe("served");
  });

  it("P2: is not tried again after the first byte", async () => {
    const w = world();
    await w.add("a");
    await w.add("b");
    const { done, events } = w.ask("r");
    w.sent[0]?.sink.begin(200, [], null);
    w.sent[0]?.sink.cut("reset");
    w.sent[0]?.settle({ kind: "cut", reason: "reset" });
    expect(await done).toBe("served");
    expect(events).toEqual(["begin 200", "cut"]);
    expect(w.sent).toHaveLength(1);
  });

  it("fails after all tries, with pauses between them when no other engine is left", async () => {
    const w = world();
    await w.add("a");
    const { done } = w.ask("r");
    for (let i = 0; i < 5; i++) {
      w.sent[i]?.settle({ kind: "refused", status: 503 });
      await w.clock.run(3_000);
    }
    expect(await done).toBe("engine.unavailable");
    expect(w.sent).toHaveLength(5);
  });

  it("waits while every engine is fenced, goes on at open, and is refused after its time", async () => {
    const w = world({ waitMs: 1_000, waitingMax: 2 });
    await w.add("a");
    await w.dispatcher.fence("a");
    const first = w.ask("1");
    await w.clock.run(900);
    const second = w.ask("2");
    expect(await w.ask("3").done).toBe("wire.limit");
    await w.clock.run(200);
    expect(await first.done).toBe("engine.unavailable");
    expect(w.sent).toHaveLength(0);
    w.dispatcher.open("a", 4);
    await w.clock.run(0);
    expect(w.sent.map(({ request }) => request.id)).toEqual(["2"]);
    answer(w.sent[0]);
    expect(await second.done).toBe("served");
    expect(w.clock.pending()).toBe(0);
  });

  it("P5: leaves an engine that is out and sends nothing for stallMs; its streams are cut", async () => {
    const w = world();
    await w.add("a");
    const waiting = w.ask("1");
    const streaming = w.ask("2");
    w.sent[1]?.sink.begin(200, [], null);
    w.alive.delete("http://a");
    await w.add("b");
    await w.dispatcher.probe("a");
    await w.clock.run(defaultRouterLimits.stallMs - 1);
    expect(streaming.events).toEqual(["begin 200"]);
    await w.clock.run(1);
    expect(streaming.events).toEqual(["begin 200", "cut"]);
    expect(w.sent[2]?.url).toBe("http://b");
    answer(w.sent[2]);
    expect(await waiting.done).toBe("served");
  });

  it("drains: nothing new, the end when the last has ended, a deadline otherwise", async () => {
    const w = world();
    await w.add("a");
    const running = w.ask("1");
    const late = w.dispatcher.drain("a", 1_000).catch((error: unknown) => (SlimeError.isAny(error) ? error.code : error));
    await w.clock.run(1_001);
    expect(await late).toBe("call.deadline");
    const held = w.ask("2");
    const drained = w.dispatcher.drain("a", 1_000);
    answer(w.sent[0]);
    await drained;
    expect(await running.done).toBe("served");
    expect(w.sent).toHaveLength(1);
    held.leave();
    expect(await held.done).toBe("left");
  });
});

it("P1, P3: no request reaches a fenced or ejected engine, and none is lost", async () => {
  const id = fc.constantFrom("a", "b", "c");
  const op = fc.oneof(
    { weight: 4, arbitrary: fc.constant({ kind: "ask" as const }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant("settle" as const),
        at: fc.nat(),
        how: fc.constantFrom<Ending>("answered", "refused", "unreachable", "broken", "stale", "cut"),
      }),
    },
    fc.record({
      kind: fc.constantFrom("fence" as const, "die" as const, "revive" as const, "probe" as const, "remove" as const, "add" as const),
      id,
    }),
    fc.record({ kind: fc.constant("open" as const), id, version: fc.nat({ max: 3 }) }),
    fc.record({ kind: fc.constant("leave" as const), at: fc.nat() }),
    fc.record({ kind: fc.constant("run" as const), ms: fc.nat({ max: 2_000 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(op, { maxLength: 60 }), async (ops) => {
      const w = world({ waitMs: 5_000, waitingMax: 4 });
      for (const name of ["a", "b"]) await w.add(name);
      const asked: Asked[] = [];
      const open = () => w.sent.filter(({ over }) => !over());
      let checked = 0;
      /** Every request sent since the last look went to an engine that was able then: states change only in steps of this loop. */
      const check = (wasAble: ReadonlySet<string>) => {
        for (; checked < w.sent.length; checked++) expect(wasAble).toContain(w.sent[checked]?.url);
      };
      const ableNow = () =>
        new Set(
          w.dispatcher.fleet.workers
            .filter(({ health, gate, draining }) => health.kind === "healthy" && gate.kind === "open" && !draining)
            .map(({ url }) => url),
        );
      for (const step of ops) {
        const before = ableNow();
        if (step.kind === "ask") {
          asked.push(w.ask(String(asked.length)));
          check(before);
        }
        if (step.kind === "settle") settle(open()[step.at % Math.max(1, open().length)], step.how);
        if (step.kind === "fence") {
          void w.dispatcher.fence(step.id);
          check(before);
        }
        if (step.kind === "open" && w.dispatcher.fleet.get(step.id) !== undefined) w.dispatcher.open(step.id, step.version);
        if (step.kind === "die") w.alive.delete(`http://${step.id}`);
        if (step.kind === "revive") w.alive.set(`http://${step.id}`, "0");
        if (step.kind === "probe") void w.dispatcher.probe(step.id);
        if (step.kind === "remove") w.dispatcher.remove(step.id);
        if (step.kind === "add") {
          w.dispatcher.fleet.add(step.id, `http://${step.id}`);
          void w.dispatcher.probe(step.id);
        }
        if (step.kind === "leave") asked[step.at % Math.max(1, asked.length)]?.leave();
        const middle = ableNow();
        await w.clock.run(step.kind === "run" ? step.ms : 0);
        check(new Set([...middle, ...ableNow()]));
      }
      // Peace: engines live, answer everything; every request must come to its end.
      for (const name of ["a", "b", "c"]) w.dispatcher.remove(name);
      await w.add("d", String(w.dispatcher.fleet.version ?? 0));
      for (let i = 0; i < 20; i++) {
        for (const sent of open()) settle(sent, "answered");
        await w.clock.run(3_000);
      }
      const ends = await Promise.all(asked.map(({ done }) => done));
      for (const [i, end] of ends.entries()) {
        const events = asked[i]?.events ?? [];
        expect(["served", "left", "engine.unavailable", "wire.limit"]).toContain(end);
        if (end === "served")
          expect([
            ["begin 200", "end"],
            ["begin 200", "cut"],
          ]).toContainEqual(events);
        else if (end !== "left") expect(events).toEqual([]);
      }
      expect(w.dispatcher.waiting).toBe(0);
      for (const { inFlight } of w.dispatcher.fleet.workers) expect(inFlight).toBe(0);
    }),
    { numRuns: 150 },
  );
});
