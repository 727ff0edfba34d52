import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Fleet, isAble, type StayEnd, workerView } from "./fleet.js";
import { leastInFlight } from "./policies/least-in-flight.js";
import { roundRobin } from "./policies/round-robin.js";

type PolicyName = "round_robin" | "least_in_flight";
function fleetOf(policy: PolicyName): Fleet {
  const make = policy === "round_robin" ? roundRobin : leastInFlight;
  return new Fleet({ whole: make(), prefill: make(), decode: make() }, 2);
}
function ready(policy: PolicyName, ids: readonly string[]): Fleet {
  const fleet = fleetOf(policy);
  for (const id of ids) {
    fleet.add(id, `http://${id}`);
    fleet.admit(id, null);
  }
  return fleet;
}

describe("policies", () => {
  it("round robin takes turns", () => {
    const fleet = ready("round_robin", ["a", "b", "c"]);
    expect(Array.from({ length: 6 }, () => fleet.pick()?.id).join("")).toBe("abcabc");
  });

  it("least in flight takes the least busy, equals in turn", () => {
    const fleet = ready("least_in_flight", ["a", "b", "c"]);
    const first = Array.from({ length: 3 }, () => fleet.pick()?.id);
    expect(new Set(first).size).toBe(3);
    fleet.ended("b", "answered", "");
    expect(fleet.pick()?.id).toBe("b");
  });

  it("avoids engines already tried while there are others", () => {
    const fleet = ready("round_robin", ["a", "b"]);
    expect(fleet.pick(new Set(["a"]))?.id).toBe("b");
    expect(fleet.pick(new Set(["a", "b"]))).not.toBeNull();
  });
});

describe("F4: coming back", () => {
  it("an ejected engine passes requests again only at the fleet's version", () => {
    const fleet = ready("round_robin", ["a", "b"]);
    fleet.open("a", 3);
    fleet.open("b", 3);
    fleet.pick(new Set(["b"]));
    fleet.ended("a", "unreachable", "refused");
    expect(workerView(fleet.get("a") ?? fail()).state).toBe("unhealthy");
    expect(fleet.wantsVersion("a")).toBe(true);
    fleet.admit("a", "0");
    expect(workerView(fleet.get("a") ?? fail()).state).toBe("fenced");
    expect(fleet.wantsVersion("a")).toBe(true);
    fleet.admit("a", "3");
    expect(workerView(fleet.get("a") ?? fail())).toMatchObject({ state: "healthy", weightVersion: 3 });
    expect(fleet.wantsVersion("a")).toBe(false);
  });

  it("a new engine waits for the fleet's version, a fenced one for open", () => {
    const fleet = ready("round_robin", ["a"]);
    fleet.open("a", 1);
    fleet.add("b", "http://b");
    fleet.admit("b", "0");
    expect(isAble(fleet.get("b") ?? fail())).toBe(false);
    fleet.fence("b");
    fleet.admit("b", "1");
    expect(isAble(fleet.get("b") ?? fail())).toBe(false);
    fleet.open("b", 1);
    expect(isAble(fleet.get("b") ?? fail())).toBe(true);
  });

  it("weights that no push has named are version 0", () => {
    const fleet = ready("round_robin", ["a"]);
    fleet.open("a", 0);
    fleet.eject("a", "hung");
    fleet.admit("a", "default");
    expect(isAble(fleet.get("a") ?? fail())).toBe(true);
    fleet.open("a", 1);
    fleet.eject("a", "hung");
    fleet.admit("a", "default");
    expect(isAble(fleet.get("a") ?? fail())).toBe(false);
  });

  it("after a break an engine is asked for its version before it gets another request, where versions matter", () => {
    const fleet = ready("round_robin", ["a"]);
    fleet.open("a", 1);
    fleet.pick();
    fleet.ended("a", "broken", "reset");
    expect(fleet.able).toBe(0);
    expect(fleet.wantsVersion("a")).toBe(true);
    fleet.admit("a", "0");
    expect(fleet.able).toBe(0);
    fleet.admit("a", "1");
    expect(fleet.able).toBe(1);
  });

  it("one broken connection is forgiven, two in a row are not", () => {
    const fleet = ready("round_robin", ["a"]);
    const stay = (how: StayEnd) => {
      fleet.pick();
      fleet.ended("a", how, "reset");
    };
    stay("broken");
    stay("answered");
    stay("broken");
    expect(fleet.able).toBe(1);
    stay("broken");
    expect(fleet.able).toBe(0);
  });
});

it("F1, F2, F3: whatever happens, only open, healthy engines are picked, and counts hold", () => {
  const id = fc.constantFrom("a", "b", "c");
  const op = fc.oneof(
    fc.record({ kind: fc.constantFrom("add" as const, "remove" as const, "fence" as const, "drain" as const), id }),
    fc.record({ kind: fc.constant("open" as const), id, version: fc.nat({ max: 5 }) }),
    fc.record({ kind: fc.constant("probe" as const), id, ok: fc.boolean(), found: fc.constantFrom("0", "1", "2", "3", null) }),
    fc.record({ kind: fc.constant("pick" as const), avoid: fc.subarray(["a", "b", "c"]) }),
    fc.record({
      kind: fc.constant("end" as const),
      at: fc.nat(),
      how: fc.constantFrom<StayEnd>("answered", "broken", "unreachable", "abandoned"),
    }),
  );
  fc.assert(
    fc.property(fc.constantFrom("round_robin" as const, "least_in_flight" as const), fc.array(op, { maxLength: 80 }), (policy, ops) => {
      const fleet = fleetOf(policy);
      // What an outsider knows: closed by fence or drain and not opened since; failed and not probed well or opened since.
      const closed = new Set<string>();
      const failed = new Set<string>();
      const out: string[] = [];
      let highest = -1;
      for (const step of ops) {
        if (step.kind === "add" && fleet.get(step.id) === undefined) {
          fleet.add(step.id, `http://${step.id}`);
          closed.delete(step.id);
          failed.add(step.id);
        }
        const known = "id" in step && fleet.get(step.id) !== undefined;
        if (step.kind === "remove" && !out.includes(step.id)) fleet.remove(step.id);
        if (step.kind === "fence" || step.kind === "drain") {
          fleet[step.kind](step.id);
          closed.add(step.id);
        }
        if (step.kind === "open" && known) {
          fleet.open(step.id, step.version);
          closed.delete(step.id);
          failed.delete(step.id);
          highest = Math.max(highest, step.version);
        }
        if (step.kind === "probe") {
          if (step.ok) fleet.admit(step.id, step.found);
          else fleet.eject(step.id, "silent");
          if (!step.ok) failed.add(step.id);
          else if (highest < 0 || step.found === String(highest)) failed.delete(step.id);
        }
        if (step.kind === "pick") {
          const worker = fleet.pick(new Set(step.avoid));
          if (worker === null) expect(fleet.able).toBe(0);
          else {
            expect(closed.has(worker.id), "closed").toBe(false);
            expect(failed.has(worker.id), "failed").toBe(false);
            out.push(worker.id);
          }
        }
        if (step.kind === "end" && out.length > 0) {
          const [at] = out.splice(step.at % out.length, 1);
          fleet.ended(at ?? "", step.how, "x");
          if (step.how === "unreachable") failed.add(at ?? "");
        }
        for (const worker of fleet.workers) expect(worker.inFlight).toBe(out.filter((at) => at === worker.id).length);
      }
    }),
    { numRuns: 300 },
  );
});

function fail(): never {
  throw new RangeError("no such worker");
}
