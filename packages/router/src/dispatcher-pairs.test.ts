import fc from "fast-check";
import { expect, it } from "vitest";
import { type Asked, dispatcherWorld, type Ending, settle } from "./testing/dispatcher-world.js";

const prefill = { kind: "prefill", bootstrapPort: 8_998 } as const;
const decode = { kind: "decode" } as const;
const roles = { p: prefill, q: prefill, d: decode, e: decode } as const;
const names = ["p", "q", "d", "e"] as const;

it("P1, P3, P6: pairs go only to able engines of one version, every request ends once, and no count is left over", async () => {
  const id = fc.constantFrom(...names);
  const op = fc.oneof(
    { weight: 4, arbitrary: fc.constant({ kind: "ask" as const }) },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("settle" as const),
        at: fc.nat(),
        how: fc.constantFrom<Ending>("answered", "answered", "refused", "unreachable", "broken", "stale", "cut"),
        status: fc.constantFrom(200, 200, 200, 400, 500),
      }),
    },
    fc.record({ kind: fc.constantFrom("fence" as const, "die" as const, "revive" as const, "probe" as const), id }),
    fc.record({ kind: fc.constant("open" as const), id, version: fc.nat({ max: 2 }) }),
    fc.record({ kind: fc.constant("leave" as const), at: fc.nat() }),
    fc.record({ kind: fc.constant("run" as const), ms: fc.nat({ max: 8_000 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(op, { maxLength: 50 }), async (ops) => {
      const w = dispatcherWorld({ waitMs: 5_000, waitingMax: 4 });
      const { fleet } = w.dispatcher;
      for (const name of names) await w.add(name, null, roles[name]);
      const asked: Asked[] = [];
      const open = () => w.sent.filter(({ over }) => !over());
      let checked = 0;
      /** What was sent since the last look came in pairs, each of one version, as gates stood then: they change only in steps of this loop. */
      const check = (gates: ReadonlyMap<string, number | null>) => {
        for (; checked < w.sent.length; checked += 2) {
          const [one, other] = [w.sent[checked], w.sent[checked + 1]];
          expect([one?.url.at(-1), other?.url.at(-1)].map((name) => roles[name as "p"].kind)).toEqual(["prefill", "decode"]);
          expect(one?.request.body).toEqual(other?.request.body);
          expect(gates.has(one?.url ?? "") && gates.has(other?.url ?? "")).toBe(true);
          expect(gates.get(one?.url ?? "")).toBe(gates.get(other?.url ?? ""));
        }
      };
      const gatesNow = () =>
        new Map(
          fleet.workers.flatMap(({ url, health, gate }) =>
            health.kind === "healthy" && gate.kind === "open" ? [[url, gate.version] as const] : [],
          ),
        );
      for (const step of ops) {
        const before = gatesNow();
        if (step.kind === "ask") {
          asked.push(w.ask(String(asked.length)));
          check(before);
        }
        if (step.kind === "settle") settle(open()[step.at % Math.max(1, open().length)], step.how, step.status);
        if (step.kind === "fence") {
          void w.dispatcher.fence(step.id);
          check(before);
        }
        if (step.kind === "open") w.dispatcher.open(step.id, step.version);
        if (step.kind === "die") w.alive.delete(`http://${step.id}`);
        if (step.kind === "revive") w.alive.set(`http://${step.id}`, String(fleet.version ?? 0));
        if (step.kind === "probe") void w.dispatcher.probe(step.id);
        if (step.kind === "leave") asked[step.at % Math.max(1, asked.length)]?.leave();
        const middle = gatesNow();
        await w.clock.run(step.kind === "run" ? step.ms : 0);
        check(new Map([...middle, ...gatesNow()]));
      }
      // Peace: all engines live at one version and answer everything.
      const version = (fleet.version ?? 0) + 1;
      for (const name of names) w.dispatcher.open(name, version);
      for (let i = 0; i < 20; i++) {
        for (const sent of open()) settle(sent, "answered");
        await w.clock.run(3_000);
      }
      for (const { done, events } of asked) {
        const end = await done;
        expect(["served", "left", "engine.unavailable", "wire.limit"]).toContain(end);
        if (end === "served") expect(["begin end", "begin cut"]).toContain(events.map((event) => event.split(" ")[0]).join(" "));
        else if (end !== "left") expect(events).toEqual([]);
      }
      expect(w.dispatcher.waiting).toBe(0);
      for (const { inFlight } of fleet.workers) expect(inFlight).toBe(0);
    }),
    { numRuns: 150 },
  );
});

it("P6: what a prefill engine fails for, its decode engine is not marked for, and the reverse", async () => {
  const w = dispatcherWorld();
  for (const name of names) await w.add(name, null, roles[name]);
  const { fleet } = w.dispatcher;
  const marks = () => fleet.workers.map(({ errors }) => errors);
  const first = w.ask("1");
  settle(w.sent[0], "broken");
  await w.clock.run(0);
  expect(marks()).toEqual([1, 0, 0, 0]);
  expect(w.sent[1]?.over()).toBe(true);
  expect(w.sent.slice(2).map(({ url }) => url)).toEqual(["http://q", "http://e"]);
  settle(w.sent[3], "answered");
  settle(w.sent[2], "answered");
  expect(await first.done).toBe("served");
  const second = w.ask("2");
  const [one, other] = w.sent.slice(4);
  settle(other, "broken");
  await w.clock.run(0);
  expect(one?.over()).toBe(true);
  for (const sent of w.sent.slice(6)) settle(sent, "answered");
  expect(await second.done).toBe("served");
  expect(fleet.workers.filter(({ role, errors }) => role.kind === "decode" && errors > 0)).toHaveLength(1);
  expect(w.dispatcher.counts).toMatchObject({ requests: 2, retries: 2, failures: 0, cut: 0 });
});
