import { seededRandom } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ActorHandle, actor, ctx, defineActors, gang, type ObjectRef } from "./index.js";
import { memoryCluster } from "./testing/index.js";

/** What happened inside actors, in order; tests empty it. */
let started: { readonly actorId: string; readonly incarnation: number; readonly n: number }[] = [];

export class Recorder {
  /** Starts are noted at once; the answer comes when the test lets it. */
  note(n: number, ..._refs: readonly unknown[]): number {
    const { actorId, incarnation } = ctx();
    started.push({ actorId, incarnation, n });
    return n;
  }
  async slow(n: number): Promise<number> {
    this.note(n);
    for (let turn = 0; turn < n % 5; turn++) await Promise.resolve();
    return n;
  }
  maybe(fails: boolean, n: number): number {
    if (fails) throw new Error(`rank ${ctx().rank} was told to fail`);
    return this.note(n);
  }
}
defineActors(import.meta.url, { Recorder });

const runs = { numRuns: 60 };

describe("calls of one caller to one actor", () => {
  it("C1, X1: start in the order they were made, whatever they wait for", async () => {
    const call = fc.record({ kind: fc.constantFrom("call", "ref", "send", "waits", "large"), concurrency: fc.constant(1) });
    await fc.assert(
      fc.asyncProperty(
        fc.array(call, { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: 3 }),
        fc.boolean(),
        async (calls, concurrency, early) => {
          const clock = virtualClock();
          await using _ = memoryCluster({ clock, random: seededRandom(7) });
          started = [];
          const recorder = actor(Recorder, { concurrency });
          const other = actor(Recorder);
          if (!early) await recorder.ready();
          const results: Promise<unknown>[] = [];
          calls.forEach(({ kind }, n) => {
            if (kind === "call") results.push(recorder.note(n));
            else if (kind === "ref") recorder.slow.remote(n);
            else if (kind === "send") recorder.note.send(n);
            else if (kind === "waits") results.push(recorder.note(n, other.slow.remote(1000 + n) as ObjectRef<unknown>));
            else results.push(recorder.note(n, new Float64Array(20_000)));
          });
          await Promise.all(results);
          await clock.run(10);
          const mine = started.filter(({ actorId }) => actorId === recorder.actorId).map(({ n }) => n);
          expect(mine).toEqual(calls.map((_call, n) => n));
        },
      ),
      runs,
    );
  });

  it("C2, C3, K1: under cuts and crashes every call settles once, and runs at most once per life where it has retries", async () => {
    const fault = fc.record({ after: fc.integer({ min: 0, max: 40 }), kind: fc.constantFrom("cut", "crash", "stall") });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 12 }), fc.array(fault, { maxLength: 5 }), async (count, faults) => {
        const clock = virtualClock();
        await using cluster = memoryCluster({ clock, random: seededRandom(11) });
        started = [];
        const recorder = actor(Recorder, { maxRestarts: -1 });
        await recorder.note(-1);
        let settled = 0;
        const outcomes = Array.from({ length: count }, (_, n) =>
          (n % 2 === 0 ? recorder.slow.options({ retries: 20 }) : recorder.slow)(n).then(
            (value) => {
              settled++;
              return { ok: value };
            },
            (error: unknown) => {
              settled++;
              return { failed: (error as { code: string }).code };
            },
          ),
        );
        for (const { after, kind } of faults) {
          for (let turn = 0; turn < after; turn++) await Promise.resolve();
          if (kind === "crash") await cluster.crash(recorder);
          else if (kind === "cut") cluster.cut(recorder);
          else {
            cluster.stall(recorder);
            await clock.run(1);
            cluster.cut(recorder);
            cluster.stall(recorder, false);
          }
        }
        await clock.run(20_000);
        const ended = await Promise.all(outcomes);
        expect(settled).toBe(count);
        ended.forEach((outcome, n) => {
          const lives = started.filter((each) => each.n === n).map(({ incarnation }) => incarnation);
          if (n % 2 === 0) {
            expect(outcome).toEqual({ ok: n });
            expect(new Set(lives).size, `call ${n} ran in lives ${lives}`).toBe(lives.length);
          } else {
            expect([{ ok: n }, { failed: "actor.unavailable" }]).toContainEqual(outcome);
            expect(lives.length).toBeLessThanOrEqual(1);
          }
        });
      }),
      runs,
    );
  });
});

describe("gangs", () => {
  it("G1–G4: all ranks or none succeed; results by rank; the error names exactly the ranks that failed; a repetition runs nothing", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { minLength: 1, maxLength: 6 }), async (fails) => {
        const clock = virtualClock();
        await using _ = memoryCluster({ clock, random: seededRandom(3) });
        started = [];
        const ranks = gang(Recorder, { size: fails.length });
        await ranks.ready();
        const op = () =>
          ranks.all.maybe
            .options({ opId: "op_x" })
            .each((rank) => [fails[rank] ?? false, rank])
            .catch((error: unknown) => error);
        const first = await op();
        const ranSoFar = started.length;
        const again = await op();
        const failed = fails.flatMap((fail, rank) => (fail ? [rank] : []));
        if (failed.length === 0) {
          expect(first).toEqual(fails.map((_fail, rank) => rank));
          expect(again).toEqual(first);
        } else {
          const named = (first as { details: { failedRanks: readonly number[] } }).details.failedRanks;
          expect(named.length).toBeGreaterThan(0);
          expect(failed).toEqual(expect.arrayContaining([...named]));
          expect(again).toMatchObject({ code: "gang.rank_failed" });
        }
        expect(started.length).toBe(ranSoFar);
      }),
      runs,
    );
  });

  it("a rank that dies and restarts fails the op in flight only; handles of others stay usable", async () => {
    const clock = virtualClock();
    await using cluster = memoryCluster({ clock });
    const ranks = gang(Recorder, { size: 2, maxRestarts: 1 });
    await ranks.all.note(0);
    await cluster.crash(ranks.ranks[0] as ActorHandle<Recorder>);
    expect(await ranks.all.note(1)).toEqual([1, 1]);
  });
});
