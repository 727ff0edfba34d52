import { routerPolicies } from "@slime/backend";
import { seededRandom } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cacheAware, defaultCacheAware } from "./cache-aware.js";
import { consistentHashing } from "./consistent-hashing.js";
import { makePolicy } from "./index.js";
import { at, type Candidate, noHint, type Policy, type RouteHint } from "./policy.js";
import { randomPolicy } from "./random.js";

const engine = (i: number, inFlight = 0): Candidate => ({ id: `id${i}`, url: `http://10.0.0.${i}:30000`, inFlight });
const engines = (count: number): Candidate[] => Array.from({ length: count }, (_, i) => engine(i));
const keyed = (key: string): RouteHint => ({ key, prompt: null });
const prompted = (text: string): RouteHint => ({ key: null, prompt: Buffer.from(text) });

/** Sends `count` requests that stay, and says how many each engine got. */
function shares(policy: Policy, able: readonly Candidate[], count: number, hint: (i: number) => RouteHint = () => noHint): number[] {
  const busy = able.map((one) => ({ ...one }));
  const got = busy.map(() => 0);
  for (let i = 0; i < count; i++) {
    const chosen = policy.choose(busy, hint(i));
    const index = busy.indexOf(chosen);
    got[index] = (got[index] ?? 0) + 1;
    chosen.inFlight++;
  }
  return got;
}

describe("every policy", () => {
  const world = fc.record({
    policy: fc.constantFrom(...routerPolicies),
    seed: fc.nat(),
    loads: fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 9 }),
    hints: fc.array(fc.oneof(fc.constant(noHint), fc.string({ maxLength: 12 }).map(keyed), fc.string({ maxLength: 600 }).map(prompted)), {
      minLength: 1,
      maxLength: 30,
    }),
    forgotten: fc.array(fc.nat({ max: 8 }), { maxLength: 4 }),
  });

  it("L1: chooses one of those it is given, whatever was chosen and forgotten before", () => {
    fc.assert(
      fc.property(world, ({ policy: name, seed, loads, hints, forgotten }) => {
        const policy = makePolicy(name, seededRandom(seed), defaultCacheAware);
        const all = loads.map((inFlight, i) => engine(i, inFlight));
        for (const [i, hint] of hints.entries()) {
          // Any part of the fleet may be out at any moment.
          const able = all.filter((_, at) => (i + at) % 3 !== 0);
          if (able.length > 0) expect(able).toContain(policy.choose(able, hint));
          const gone = forgotten[i];
          if (gone !== undefined) policy.forget(`id${gone}`);
        }
      }),
      { numRuns: 300 },
    );
  });

  it.each([
    ["round_robin", 0],
    ["least_in_flight", 0],
    // Two choices: the gap grows as log log n.
    ["power_of_two", 4],
    ["consistent_hashing", 0],
    ["cache_aware", 0],
  ] as const)("%s spreads requests without key or prompt evenly, give or take %d", (name, gap) => {
    const got = shares(makePolicy(name, seededRandom(7), defaultCacheAware), engines(4), 400);
    expect(Math.max(...got) - Math.min(...got)).toBeLessThanOrEqual(gap);
  });

  it("random spreads within four standard deviations", () => {
    const got = shares(randomPolicy(seededRandom(3)), engines(4), 4_000);
    for (const share of got) expect(Math.abs(share - 1_000)).toBeLessThan(4 * Math.sqrt(4_000 * 0.25 * 0.75));
  });
});

it.each(["round_robin", "random", "least_in_flight", "power_of_two", "cache_aware"] as const)(
  "L6: %s lets an engine that answers nothing hold a bounded share, so that the others serve on",
  (name) => {
    const policy = makePolicy(name, seededRandom(5), defaultCacheAware);
    const able = engines(4).map((one) => ({ ...one }));
    const hung = at(able, 2);
    const busy: (typeof able)[number][] = [];
    // 256 clients, each asking again as soon as it is answered, oldest first.
    let answered = 0;
    for (let i = 0; i < 20_000; i++) {
      if (able.reduce((sum, { inFlight }) => sum + inFlight, 0) === 256) {
        const first = busy.shift();
        expect(first).toBeDefined();
        if (first === undefined) return;
        first.inFlight--;
        answered++;
      }
      const chosen = policy.choose(able, prompted("one prompt for all"));
      chosen.inFlight++;
      if (chosen !== hung) busy.push(chosen);
    }
    expect(hung.inFlight).toBeLessThan(128);
    expect(answered).toBeGreaterThan(19_000);
  },
);

describe("least_in_flight and power_of_two", () => {
  it("never choose the busiest of unlike engines", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat({ max: 100 }), { minLength: 2, maxLength: 8 }), fc.nat(), (loads, seed) => {
        const able = loads.map((load, i) => engine(i, load));
        expect(makePolicy("least_in_flight", seededRandom(seed), defaultCacheAware).choose(able, noHint).inFlight).toBe(Math.min(...loads));
        expect(makePolicy("power_of_two", seededRandom(seed), defaultCacheAware).choose(able, noHint).inFlight).toBeLessThan(
          Math.max(...loads),
        );
      }),
    );
  });
});

describe("L3: consistent_hashing", () => {
  const keys = Array.from({ length: 2_000 }, (_, i) => `session-${i}`);
  const placed = (able: readonly Candidate[]) => {
    const policy = consistentHashing();
    return new Map(keys.map((key) => [key, policy.choose(able, keyed(key)).url]));
  };

  it("a key keeps its engine, whatever the loads and the order of engines", () => {
    fc.assert(
      fc.property(fc.string(), fc.array(fc.nat({ max: 50 }), { minLength: 5, maxLength: 5 }), fc.boolean(), (key, loads, turned) => {
        const policy = consistentHashing();
        const first = policy.choose(engines(5), keyed(key)).url;
        const later = loads.map((load, i) => engine(i, load));
        expect(policy.choose(turned ? later.reverse() : later, keyed(key)).url).toBe(first);
      }),
    );
  });

  it("only the keys of an engine that goes move; one that comes takes its share and no more", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 12 }), fc.nat(), (count, which) => {
        const all = engines(count);
        const gone = at(all, which % count);
        const before = placed(all);
        const after = placed(all.filter((one) => one !== gone));
        let moved = 0;
        for (const key of keys) {
          if (before.get(key) === gone.url) moved++;
          else expect(after.get(key)).toBe(before.get(key));
        }
        // Read backwards, it is the coming of an engine: as many keys move to it.
        const share = keys.length / count;
        expect(Math.abs(moved - share)).toBeLessThan(5 * Math.sqrt(share));
      }),
      { numRuns: 40 },
    );
  });

  it("keys that differ in one digit spread evenly", () => {
    const got = shares(consistentHashing(), engines(4), 2_000, (i) => keyed(String(i)));
    for (const share of got) expect(Math.abs(share - 500)).toBeLessThan(5 * Math.sqrt(500));
  });
});

describe("cache_aware", () => {
  it("L5: sends what begins alike to the engine that has it, and other prompts elsewhere", () => {
    const policy = cacheAware();
    const able = engines(3);
    const one = policy.choose(able, prompted("a".repeat(1_000)));
    const other = policy.choose(able, prompted("b".repeat(1_000)));
    expect(other).not.toBe(one);
    expect(policy.choose(able, prompted(`${"a".repeat(1_000)} and more`))).toBe(one);
    expect(policy.choose(able, prompted(`${"b".repeat(900)}${"c".repeat(300)}`))).toBe(other);
    // Less than 0.3 of the prompt is known: no reason to go there.
    const third = policy.choose(able, prompted(`${"a".repeat(256)}${"d".repeat(4_000)}`));
    expect([one, other]).not.toContain(third);
  });

  it("L5: a group of equal prompts stays together while loads are balanced, L4: and is spread when they are not", () => {
    const got = shares(cacheAware(), engines(4), 200, () => prompted("the same prompt for all of a group, as in GRPO"));
    expect(Math.max(...got)).toBeGreaterThan(11);
    expect(Math.max(...got) - Math.min(...got)).toBeLessThanOrEqual(12);
  });

  it("L4: an engine over both thresholds is never chosen", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat({ max: 60 }), { minLength: 2, maxLength: 6 }),
        fc.array(fc.string({ minLength: 1, maxLength: 300 }), { minLength: 1, maxLength: 20 }),
        (loads, prompts) => {
          const policy = cacheAware();
          const able = loads.map((load, i) => engine(i, load));
          const [fewest, most] = [Math.min(...loads), Math.max(...loads)];
          const isUnbalanced = most - fewest > 10 && most > 1.2 * fewest;
          for (const prompt of prompts) {
            const chosen = policy.choose(able, prompted(prompt));
            if (isUnbalanced) expect(chosen.inFlight).toBe(fewest);
          }
        },
      ),
    );
  });

  it("forgets what an engine had when it restarted", () => {
    const policy = cacheAware();
    const able = engines(2);
    const first = policy.choose(able, prompted("x".repeat(500)));
    policy.forget(first.id);
    const busy = able.map((one) => (one === first ? { ...one, inFlight: 1 } : one));
    expect(policy.choose(busy, prompted("x".repeat(500))).id).not.toBe(first.id);
  });
});
