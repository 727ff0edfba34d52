import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { abortable, deadline } from "./abort.js";
import { backoffDelayMs, defaultBackoff } from "./backoff.js";
import { sleep } from "./clock.js";
import { causeChain, errorFacts, factsOf, reasonOf, SlimeError } from "./errors.js";
import { ActorId, NodeId } from "./ids.js";
import { seededRandom, systemRandom } from "./random.js";
import { virtualClock } from "./testing/index.js";

describe("ids", () => {
  it("read as kind_hex16 and are refused as another kind", () => {
    const id = NodeId.create(seededRandom(1));
    expect(id).toMatch(/^node_[0-9a-f]{16}$/);
    expect(NodeId.is(id)).toBe(true);
    expect(ActorId.is(id)).toBe(false);
    expect(() => ActorId.parse(id)).toThrow(/actor_/);
    expect(NodeId.create(systemRandom)).not.toBe(NodeId.create(systemRandom));
  });
});

describe("random", () => {
  it("repeats by seed, differs between seeds, and stays in [0, 1)", () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const [a, b, c] = [seededRandom(seed), seededRandom(seed), seededRandom(seed + 1)];
        const units = Array.from({ length: 8 }, () => a.unit());
        expect(units).toEqual(Array.from({ length: 8 }, () => b.unit()));
        expect(units).not.toEqual(Array.from({ length: 8 }, () => c.unit()));
        expect(units.every((unit) => unit >= 0 && unit < 1)).toBe(true);
      }),
    );
  });
});

describe("errors", () => {
  it("E1: every code has facts with a real HTTP status and exit code", () => {
    for (const [code, facts] of Object.entries(errorFacts)) {
      expect(facts.httpStatus, code).toBeGreaterThanOrEqual(400);
      expect(facts.exitCode, code).toBeGreaterThan(0);
      expect(facts.exitCode, code).toBeLessThan(256);
    }
  });

  it("E4: an unknown code is not retried and exits as a bug", () => {
    expect(factsOf(new Error("plain"))).toEqual({ retryable: false, httpStatus: 500, exitCode: 70 });
    expect(factsOf(new SlimeError("wire.broken", "gone", { peer: "p", reason: "r" })).retryable).toBe(true);
  });

  it("leads its message with the code and lists its causes once each", () => {
    const inner = new Error("disk on fire");
    const outer = new SlimeError("disk.full", "cannot write", { path: "/x", needed: null }, { cause: inner });
    expect(outer.message).toBe("[disk.full] cannot write");
    expect(SlimeError.is(outer, "disk.full")).toBe(true);
    expect(SlimeError.is(outer, "usage")).toBe(false);
    expect(causeChain(outer)).toEqual(["[disk.full] cannot write", "disk on fire"]);
    expect([reasonOf(outer), reasonOf(inner)]).toEqual(["cannot write: disk on fire", "disk on fire"]);
  });
});

describe("backoff", () => {
  it("grows, stays under its cap and ends", () => {
    const still = { ...defaultBackoff, jitter: 0, triesMax: 30 };
    const delays = Array.from({ length: 29 }, (_, at) => backoffDelayMs(still, at + 2, seededRandom(1)) ?? Number.NaN);
    expect(delays[0]).toBe(50);
    expect(delays.every((delay, at) => at === 0 || delay >= (delays[at - 1] ?? 0))).toBe(true);
    expect(Math.max(...delays)).toBe(30_000);
    expect(backoffDelayMs(still, 31, seededRandom(1))).toBeNull();
  });
});

describe("time", () => {
  it("V1: timers fire in order of time, then of creation", () => {
    const clock = virtualClock();
    const seen: string[] = [];
    clock.after(20, () => seen.push("b"));
    clock.after(10, () => seen.push("a"));
    clock.after(20, () => seen.push("c"));
    clock.after(15, () => seen.push("never")).cancel();
    clock.advance(25);
    expect(seen).toEqual(["a", "b", "c"]);
    expect(clock.nowMs()).toBe(25);
    expect(clock.pending()).toBe(0);
  });

  it("a deadline aborts with its code, and leaves no timer when disposed", async () => {
    const clock = virtualClock();
    const limit = deadline(clock, 100, "call f");
    const waiting = abortable(new Promise<never>(() => {}), limit.signal);
    clock.advance(100);
    await expect(waiting).rejects.toMatchObject({ code: "call.deadline", details: { timeoutMs: 100 } });
    deadline(clock, 100, "call g")[Symbol.dispose]();
    expect(clock.pending()).toBe(0);
  });

  it("a deadline follows an outer signal, also one already aborted", () => {
    const clock = virtualClock();
    const outer = new AbortController();
    const limit = deadline(clock, 100, "call f", outer.signal);
    outer.abort("why");
    expect(limit.signal.reason).toBe("why");
    expect(deadline(clock, 100, "g", outer.signal).signal.aborted).toBe(true);
    expect(clock.pending()).toBe(0);
  });

  it("sleep ends with its clock or with its signal", async () => {
    const clock = virtualClock();
    const slept = sleep(clock, 10);
    clock.advance(10);
    await slept;
    const outer = new AbortController();
    const cut = sleep(clock, 10, outer.signal);
    outer.abort(new Error("stop"));
    await expect(cut).rejects.toThrow("stop");
    expect(clock.pending()).toBe(0);
  });
});
