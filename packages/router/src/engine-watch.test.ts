import { silentLogger } from "@slime/core";
import { type VirtualClock, virtualClock } from "@slime/core/testing";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EngineWatch } from "./engine-watch.js";
import { Fleet } from "./fleet.js";
import { defaultRouterLimits as limits } from "./options.js";
import { roundRobin } from "./policies/round-robin.js";
import { startProber } from "./prober.js";
import type { Transport } from "./transport.js";

const url = "http://engine";
const byStop = limits.probeEveryMs + limits.probeTimeoutMs;

interface World {
  readonly clock: VirtualClock;
  readonly fleet: Fleet;
  readonly watch: EngineWatch;
  /** When it was given up, each time. */
  readonly givenUp: number[];
  /** How the engine is: how long it takes over a probe; stopped, it does nothing; `refuses` says so to the next probe. */
  readonly engine: { probeMs: number; stopped: boolean; refuses: string | null; version: string };
  readonly isHealthy: () => boolean;
  /** Probes sent so far. */
  readonly probes: () => number;
  readonly byte: () => void;
}

/** One healthy engine with a request in flight, watched from time 0. */
async function world(): Promise<World> {
  const clock = virtualClock();
  const fleet = new Fleet({ whole: roundRobin(), prefill: roundRobin(), decode: roundRobin() }, limits.brokenMax);
  const engine: World["engine"] = { probeMs: 0, stopped: false, refuses: null, version: "1" };
  const givenUp: number[] = [];
  let probes = 0;
  const transport: Transport = {
    probe: (_url, { timeoutMs }) =>
      new Promise((resolve) => {
        probes++;
        if (engine.refuses !== null && !engine.stopped) return resolve({ ok: false, reason: engine.refuses });
        const answer = () => {
          if (!engine.stopped) resolve({ ok: true, found: engine.version });
        };
        if (engine.probeMs === 0) answer();
        else clock.after(engine.probeMs, answer);
        clock.after(timeoutMs, () => resolve({ ok: false, reason: "late" }));
      }),
    send: () => {
      throw new RangeError("nothing is sent here");
    },
    forget: () => {},
    close: () => Promise.resolve(),
  };
  const watch = new EngineWatch(
    fleet,
    transport,
    limits,
    { clock, log: silentLogger },
    {
      giveUp: () => givenUp.push(clock.nowMs()),
      admitted: () => {},
    },
  );
  fleet.add("e", url);
  startProber({ fleet, probe: (id) => watch.probe(id) }, clock, limits.probeEveryMs);
  await watch.probe("e");
  fleet.pick();
  return {
    clock,
    fleet,
    watch,
    givenUp,
    engine,
    probes: () => probes,
    isHealthy: () => fleet.get("e")?.health.kind === "healthy",
    byte: () => watch.liveness("e").progressed(clock.nowMs()),
  };
}

/** Runs to `untilMs`, a byte coming at each time of `bytes` at which the engine is not stopped. */
async function run(w: World, untilMs: number, bytes: readonly number[] = []): Promise<void> {
  for (const at of [...bytes].sort((a, b) => a - b)) {
    if (at < w.clock.nowMs() || at > untilMs) continue;
    await w.clock.run(at - w.clock.nowMs());
    if (!w.engine.stopped) w.byte();
  }
  await w.clock.run(untilMs - w.clock.nowMs());
}

const times = (maxMs: number) => fc.array(fc.nat({ max: maxMs }), { maxLength: 30 });

describe("V1", () => {
  it("an engine that answers probes in time is never ejected, however long it sends nothing", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: limits.probeTimeoutMs - 1 }), times(70_000), async (probeMs, bytes) => {
        const w = await world();
        w.engine.probeMs = probeMs;
        await run(w, 70_000, bytes);
        expect(w.fleet.ejections).toBe(0);
        expect(w.givenUp).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });

  it("an engine that sends is never ejected, however long it leaves probes waiting", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: limits.stallMs - 1 }), { minLength: 15, maxLength: 30 }), async (gaps) => {
        const w = await world();
        w.engine.probeMs = 1e6;
        let at = 0;
        const bytes = gaps.map((gap) => (at += gap));
        await run(w, at, bytes);
        expect(w.fleet.ejections).toBe(0);
      }),
      { numRuns: 30 },
    );
  });
});

describe("G2: a stopped engine", () => {
  it("is out and given up within probeEveryMs + probeTimeoutMs, not before stallMs, and comes back by a probe", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 4_900 }),
        times(30_000),
        fc.integer({ min: 3_000, max: 30_000 }),
        async (probeMs, bytes, stopAt) => {
          const w = await world();
          w.engine.probeMs = probeMs;
          await run(w, stopAt, [...bytes, stopAt]);
          w.engine.stopped = true;
          await run(w, stopAt + limits.stallMs - 1);
          expect(w.isHealthy()).toBe(true);
          await run(w, stopAt + byStop);
          expect(w.isHealthy()).toBe(false);
          expect(w.fleet.pick()).toBeNull();
          const [first = Number.NaN] = w.givenUp;
          expect(first).toBeGreaterThanOrEqual(stopAt + limits.stallMs);
          expect(first).toBeLessThanOrEqual(stopAt + byStop);
          w.engine.stopped = false;
          await run(w, w.clock.nowMs() + limits.probeTimeoutMs + limits.probeEveryMs + probeMs);
          expect(w.isHealthy()).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("comes back only with the fleet's version", async () => {
    const w = await world();
    w.watch.suspend("e", "fenced");
    w.fleet.open("e", 2);
    w.watch.resume("e");
    w.engine.stopped = true;
    await run(w, 12_000);
    w.engine.stopped = false;
    await run(w, 30_000);
    expect(w.isHealthy()).toBe(true);
    expect(w.fleet.pick()).toBeNull();
    w.engine.version = "2";
    await run(w, 40_000);
    expect(w.fleet.pick()?.id).toBe("e");
  });
});

describe("G1", () => {
  it("fenced or paused, it may be silent for ever; its time starts when that ends", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom("fenced" as const, "paused" as const), fc.integer({ min: 0, max: 6_900 }), async (why, stopsFor) => {
        const w = await world();
        w.engine.stopped = true;
        await run(w, Math.min(stopsFor, limits.stallMs - 1));
        if (why === "fenced") w.fleet.fence("e");
        w.watch.suspend("e", why);
        await run(w, 200_000);
        expect(w.fleet.ejections).toBe(0);
        if (why === "fenced") w.fleet.open("e", 1);
        w.watch.resume("e");
        await run(w, 200_000 + limits.stallMs - 1);
        expect(w.fleet.ejections).toBe(0);
        await run(w, 200_000 + byStop);
        expect(w.isHealthy()).toBe(false);
      }),
      { numRuns: 25 },
    );
  });
});

it("G1: a probe that went unanswered while the engine was fenced counts for nothing afterwards", async () => {
  const w = await world();
  w.engine.probeMs = 1e6;
  await run(w, 3_000);
  w.fleet.fence("e");
  w.watch.suspend("e", "fenced");
  await run(w, 3_500);
  w.fleet.open("e", 1);
  w.watch.resume("e");
  // From now on every probe is answered in time.
  w.engine.probeMs = limits.probeTimeoutMs - 100;
  await run(w, 60_000);
  expect(w.fleet.ejections).toBe(0);
});

it("many doubts at once are one probe, and a probe that does not ask for the version is asked anew", async () => {
  const w = await world();
  w.fleet.open("e", 1);
  w.engine.probeMs = 1_000;
  const before = w.probes();
  void w.watch.probe("e");
  w.fleet.eject("e", "broke");
  for (let i = 0; i < 100; i++) w.watch.doubt("e");
  expect(w.probes() - before).toBe(2);
  await run(w, 1_500);
  expect(w.fleet.pick()?.id).toBe("e");
});

describe("G3: an engine that says it is unwell", () => {
  it("gets nothing new at once and keeps what it works on", async () => {
    const w = await world();
    await run(w, 3_000, [2_900]);
    w.engine.refuses = "/health answered 503";
    await run(w, 4_000);
    expect(w.isHealthy()).toBe(false);
    await run(
      w,
      20_000,
      Array.from({ length: 40 }, (_, i) => 4_000 + 400 * i),
    );
    expect(w.givenUp).toEqual([]);
    await run(w, 20_000 + 2 * limits.stallMs);
    expect(w.givenUp[0]).toBe(19_600 + limits.stallMs);
  });
});
