import { chaos, faultNames } from "@slime/testkit";
import { describe, expect, test } from "vitest";

/** `SCENARIO_SEEDS=10000 npx vitest run test/scenarios/laws.test.ts` lives more lives; a seed that breaks a law is named. */
const seeds = Number(process.env["SCENARIO_SEEDS"] ?? 200);
const parts = 4;
const did = new Map<string, number>();

describe("whatever happens, a cluster keeps its laws", () => {
  test.each(Array.from({ length: parts }, (_, part) => part))(
    `part %i of ${parts} of ${seeds} seeds`,
    async (part) => {
      const broken: string[] = [];
      for (let seed = 1 + part; seed <= seeds; seed += parts) {
        const outcome = await chaos({ seed });
        broken.push(...outcome.broken.map((line) => `seed ${seed}: ${line}`));
        for (const [what, times] of Object.entries(outcome.did)) did.set(what, (did.get(what) ?? 0) + times);
      }
      expect(broken).toEqual([]);
    },
    60_000 + 300 * seeds,
  );

  test("and every fault and every recovery was seen", () => {
    const recoveries = [
      "node.suspect",
      "node.lost",
      "node.eviction_held",
      "actor.restarting",
      "actor.alive",
      "placement_group.created",
      "placement_group.rescheduling",
      "job.driver_ended",
      "job.ended",
    ];
    expect([...faultNames, ...recoveries].filter((what) => (did.get(what) ?? 0) === 0)).toEqual([]);
  });
});
