import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { callRecord } from "./call-record.js";
import { executor, type Group, refusedFull } from "./executor.js";

const turns = async (n: number) => {
  for (let turn = 0; turn < n; turn++) await Promise.resolve();
};

describe("executor", () => {
  it("X1–X3: starts in order, never more than the group's size, refuses past its bound", async () => {
    const job = fc.record({ readyTurns: fc.integer({ min: 0, max: 6 }), runTurns: fc.integer({ min: 0, max: 6 }), fails: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        fc.array(job, { maxLength: 40 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 50 }),
        async (jobs, concurrency, pendingMax) => {
          const run = executor({ concurrency, groups: {}, urgentMax: 2, pendingMax });
          const group = run.group(null, false) as Group;
          const order: number[] = [];
          const admitted: number[] = [];
          const outcomes: Promise<unknown>[] = [];
          jobs.forEach(({ readyTurns, runTurns, fails }, n) => {
            const outcome = run.submit(group, {
              ready: readyTurns === 0 ? null : turns(readyTurns),
              run() {
                order.push(n);
                expect(run.running()).toBeLessThan(concurrency);
                if (fails) throw new Error(String(n));
                return runTurns === 0 ? n : turns(runTurns).then(() => n);
              },
            });
            if (outcome === refusedFull) return expect(run.pending()).toBe(pendingMax);
            admitted.push(n);
            outcomes.push(outcome.catch((error: unknown) => Number((error as Error).message)));
          });
          expect(await Promise.all(outcomes)).toEqual(admitted);
          expect(order).toEqual(admitted);
          await run.idle();
          expect([run.pending(), run.running()]).toEqual([0, 0]);
        },
      ),
    );
  });

  it("X4: urgent calls run while the default group is full; unknown groups have no room", () => {
    const run = executor({ concurrency: 1, groups: { io: 2 }, urgentMax: 1, pendingMax: 1 });
    expect(run.enter(run.group(null, false) as Group)).toBe(true);
    expect(run.enter(run.group(null, false) as Group)).toBe(false);
    expect(run.enter(run.group("io", false) as Group)).toBe(true);
    expect(run.enter(run.group(null, true) as Group)).toBe(true);
    expect(run.group("nope", false)).toBeUndefined();
  });

  it("100,000 queued calls that answer at once need no deep stack", async () => {
    const run = executor({ concurrency: 1, groups: {}, urgentMax: 1, pendingMax: 100_000 });
    const group = run.group(null, false) as Group;
    run.enter(group);
    const all = Array.from({ length: 20_000 }, (_, n) => run.submit(group, { ready: null, run: () => n }));
    run.leave(group);
    expect((await Promise.all(all)).length).toBe(20_000);
  });
});

describe("call record", () => {
  const sizeOf = (value: unknown) => String(value).length;

  it("K1: one run per key, while it runs and after; failures of the method are outcomes too", async () => {
    const record = callRecord({ entriesMax: 10, bytesMax: 100 }, sizeOf);
    let ran = 0;
    const once = () => record.once("a", async () => ++ran);
    expect(await Promise.all([once(), once()])).toEqual([1, 1]);
    expect(await once()).toBe(1);
    const failing = () => record.once("b", () => Promise.reject(new Error(`run ${++ran}`)));
    await expect(failing()).rejects.toThrow("run 2");
    await expect(failing()).rejects.toThrow("run 2");
  });

  it("K2: what was cancelled may run again", async () => {
    const record = callRecord({ entriesMax: 10, bytesMax: 100 }, sizeOf);
    await expect(record.once("a", () => Promise.reject(new SlimeError("call.cancelled", "x", { what: "x" })))).rejects.toMatchObject({
      code: "call.cancelled",
    });
    expect(await record.once("a", () => 5)).toBe(5);
  });

  it("K3: bounded by count and bytes, oldest first; what is too large to keep is lost, not run twice", async () => {
    const record = callRecord({ entriesMax: 3, bytesMax: 10 }, sizeOf);
    for (const key of ["a", "b", "c", "d"]) await record.once(key, () => key);
    expect(record.size()).toBe(3);
    expect(await record.once("d", () => "again")).toBe("d");
    expect(await record.once("a", () => "again")).toBe("again");
    const unsendable = callRecord({ entriesMax: 3, bytesMax: 10 }, () => {
      throw new Error("a cycle");
    });
    expect(await unsendable.once("x", () => 1)).toBe(1);
    await expect(unsendable.once("x", () => 2)).rejects.toThrow("a cycle");
    await record.once("large", () => "x".repeat(50));
    await expect(record.once("large", () => "again")).rejects.toMatchObject({ code: "object.lost" });
  });
});
