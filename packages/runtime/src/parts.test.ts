import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ActorView, deathError, deathText, newerView, unbornView } from "./actor-view.js";
import { ObjectRef } from "./object-ref.js";
import { resourceAmounts, resourceUnits } from "./resources.js";
import { measure, snapshot } from "./values.js";

const view = (change: Partial<ActorView>): ActorView => ({
  ...unbornView({ actorId: "actor_0000000000000001", jobId: "job_0000000000000001", className: "C", name: "" }),
  ...change,
});

describe("views", () => {
  it("V1, V2: DEAD is final and an earlier life says nothing, in whatever order reports arrive", () => {
    const report = fc.record({
      state: fc.constantFrom("PENDING_CREATION" as const, "ALIVE" as const, "RESTARTING" as const, "DEAD" as const),
      incarnation: fc.integer({ min: 0, max: 4 }),
    });
    fc.assert(
      fc.property(fc.array(report, { maxLength: 20 }), (reports) => {
        let known = view({});
        for (const said of reports) {
          const next = newerView(known, view(said));
          expect(next.incarnation >= known.incarnation || next.state === "DEAD").toBe(true);
          if (known.state === "DEAD") expect(next).toBe(known);
          known = next;
        }
        const dead = reports.find(({ state }) => state === "DEAD");
        if (dead !== undefined) expect(known.state).toBe("DEAD");
      }),
    );
  });

  it("a death reads as what happened, with the last lines", () => {
    const death = {
      reason: "WORKER_DIED" as const,
      message: "",
      pid: 4711,
      exitCode: null,
      signal: "SIGKILL",
      oom: true,
      stderrTail: ["one", "two"],
      nodeId: "node_1",
      atMs: 0,
    };
    expect(deathText(death)).toBe("WORKER_DIED: killed by SIGKILL (pid 4711 on node_1), out of memory; last lines of stderr: one | two");
    expect(deathText({ ...death, message: "killed by SIGKILL; its last words: two" })).not.toContain("last lines");
    expect((deathError(view({ state: "DEAD", death })) as Error).message).toContain(
      "C (actor_0000000000000001) died and will not come back: WORKER_DIED",
    );
    expect(deathError(view({ state: "DEAD" }))).toMatchObject({ code: "actor.died" });
  });
});

describe("values", () => {
  it("measure finds references and sizes; it does not hang on cycles", () => {
    const ref = new ObjectRef("obj_1", { kind: "value", value: 1 });
    expect(measure({ a: [1, { ref }], b: new Float32Array(1_000) })).toMatchObject({ refs: [ref] });
    expect(measure(new Float32Array(1_000)).bytes).toBeGreaterThan(4_000);
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    expect(() => measure(cycle)).toThrow(/cycle/);
  });

  it("snapshot copies plain data and arrays, keeps instances", () => {
    const ref = new ObjectRef("obj_1", { kind: "value", value: 1 });
    const buffer = Buffer.from("abc");
    const value = { list: [1, 2], array: new Float32Array([1]), buffer, ref };
    const copy = snapshot(value) as typeof value;
    value.list.push(3);
    value.array[0] = 9;
    buffer[0] = 0;
    expect(copy.list).toEqual([1, 2]);
    expect(copy.array[0]).toBe(1);
    expect(Buffer.from(copy.buffer).toString()).toBe("abc");
    expect(copy.ref).toBe(ref);
  });
});

describe("resources", () => {
  it("units and back", () => {
    expect(resourceUnits({ CPU: 1, GPU: 0.4, memory: 512, none: 0 })).toEqual({ CPU: 10_000, GPU: 4_000, memory: 5_120_000 });
    expect(resourceAmounts({ GPU: 4_000 })).toEqual({ GPU: 0.4 });
  });

  it.each([
    [{ CPU: -1 }, /≥ 0/],
    [{ CPU: Number.NaN }, /≥ 0/],
    [{ GPU: 1.5 }, /not whole/],
    [{ CPU: 0.00001 }, /finer/],
  ])("%o is refused", (resources, message) => {
    expect(() => resourceUnits(resources)).toThrow(message);
  });
});
