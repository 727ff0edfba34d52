import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tokenAdvantages } from "./advantages.js";
import { type AdvantageEstimator, groupNormalise, normaliseRewards } from "./group-normalise.js";
import { largestError } from "./testing/index.js";
import { addMoments, maskedMoments, whiten } from "./whiten.js";

const number = (min: number, max: number) => fc.double({ min, max, noNaN: true });
const rows = fc.array(fc.record({ reward: fc.oneof(fc.constantFrom(0, 1), number(-100, 100)), group: fc.nat(3) }), {
  minLength: 1,
  maxLength: 20,
});
const estimators: AdvantageEstimator[] = ["grpo", "gspo", "cispo", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "ppo"];

describe("groupNormalise", () => {
  it("A1, A4: each group sums to 0; equal rewards give zeros", () => {
    fc.assert(
      fc.property(rows, fc.boolean(), (input, divideBySpread) => {
        const out = groupNormalise(
          input.map((r) => r.reward),
          input.map((r) => r.group),
          { divideBySpread },
        );
        for (const group of new Set(input.map((r) => r.group))) {
          const members = input.flatMap((r, i) => (r.group === group ? [i] : []));
          const scale = Math.max(1, ...members.map((i) => Math.abs(out[i] ?? NaN)));
          expect(Math.abs(members.reduce((sum, i) => sum + (out[i] ?? NaN), 0))).toBeLessThan(1e-4 * scale);
          if (new Set(members.map((i) => input[i]?.reward)).size === 1) expect(members.every((i) => out[i] === 0)).toBe(true);
        }
      }),
      { seed: 21, numRuns: 300 },
    );
  });

  it("A2, A3: a group's values depend on its own rows alone, in any order", () => {
    fc.assert(
      fc.property(rows, fc.boolean(), (input, divideBySpread) => {
        const whole = groupNormalise(
          input.map((r) => r.reward),
          input.map((r) => r.group),
          { divideBySpread },
        );
        const sorted = input.map((r, i) => ({ ...r, i })).sort((a, b) => a.group - b.group || a.i - b.i);
        const again = groupNormalise(
          sorted.map((r) => r.reward),
          sorted.map((r) => r.group + 1000),
          { divideBySpread },
        );
        for (const [j, r] of sorted.entries()) expect(again[j]).toBe(whole[r.i]);
      }),
      { seed: 22 },
    );
  });

  it("leaves rewards alone where the estimator, or a flag, says so", () => {
    const off = { rewardsNormalization: false, grpoStdNormalization: true };
    const on = { rewardsNormalization: true, grpoStdNormalization: true };
    expect([...normaliseRewards("grpo", [1, 0], [0, 0], off)]).toEqual([1, 0]);
    expect([...normaliseRewards("ppo", [1, 0], [0, 0], on)]).toEqual([1, 0]);
    expect([...normaliseRewards("reinforce_plus_plus_baseline", [1, 0], [0, 0], on)]).toEqual([0.5, -0.5]);
    expect([...normaliseRewards("grpo", [1, 0], [0, 0], on)][0]).toBeCloseTo(Math.SQRT1_2, 4);
  });
});

const sequences = fc.array(
  fc.record({
    reward: number(-2, 2),
    tokens: fc.array(fc.record({ kl: number(-1, 1), mask: fc.constantFrom(0, 1), value: number(-1, 1) }), { minLength: 1, maxLength: 5 }),
  }),
  { minLength: 1, maxLength: 4 },
);

describe("tokenAdvantages", () => {
  const columns = (input: readonly { reward: number; tokens: readonly { kl: number; mask: number; value: number }[] }[]) => ({
    rewards_D: input.map((s) => s.reward),
    lengths_D: input.map((s) => s.tokens.length),
    mask_T: input.flatMap((s) => s.tokens.map((t) => t.mask)),
    kl_T: input.flatMap((s) => s.tokens.map((t) => t.kl)),
    values_T: input.flatMap((s) => s.tokens.map((t) => t.value)),
  });

  it("A5: rows do not touch each other", () => {
    fc.assert(
      fc.property(sequences, fc.constantFrom(...estimators), (input, estimator) => {
        const options = { estimator, klCoef: 0.3, gamma: 0.9, lambd: 0.8 };
        const whole = tokenAdvantages(columns(input), options);
        const parts = input.flatMap((s) => [...tokenAdvantages(columns([s]), options).advantages_T]);
        expect([...whole.advantages_T]).toEqual(parts);
      }),
      { seed: 23 },
    );
  });

  it("A6, A7: an empty mask is a zero; without discount and KL a return is the reward", () => {
    fc.assert(
      fc.property(sequences, (input) => {
        const removed = { ...columns(input), mask_T: columns(input).mask_T.map(() => 0) };
        expect(
          [...tokenAdvantages(removed, { estimator: "reinforce_plus_plus", klCoef: 0.1, gamma: 1, lambd: 1 }).advantages_T].every(
            (a) => a === 0,
          ),
        ).toBe(true);
        const { returns_T } = tokenAdvantages(columns(input), { estimator: "ppo", klCoef: 0, gamma: 1, lambd: 1 });
        expect(
          largestError(
            returns_T,
            input.flatMap((s) => s.tokens.map(() => s.reward)),
          ),
        ).toBeLessThan(1e-12);
      }),
      { seed: 24 },
    );
  });
});

describe("whiten", () => {
  it("H1, H2: moments add up, and trained tokens end at mean 0 and variance 1", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ value: number(-10, 10), mask: fc.constantFrom(0, 1) }), { minLength: 4, maxLength: 30 }),
        fc.nat(30),
        (input, cut) => {
          const values = input.map((t) => t.value);
          const mask = input.map((t) => t.mask);
          const whole = maskedMoments(values, mask);
          const parts = addMoments([
            maskedMoments(values.slice(0, cut), mask.slice(0, cut)),
            maskedMoments(values.slice(cut), mask.slice(cut)),
          ]);
          expect(largestError([parts.count, parts.sum, parts.sumOfSquares], [whole.count, whole.sum, whole.sumOfSquares])).toBeLessThan(
            1e-9,
          );
          const trained = values.filter((_, t) => mask[t] === 1);
          fc.pre(trained.length >= 2 && Math.max(...trained) - Math.min(...trained) > 0.1);
          const out = whiten(values, parts, { shiftMean: true, step: 3 });
          const after = maskedMoments(out, mask);
          expect(Math.abs(after.sum / after.count)).toBeLessThan(1e-6);
          expect(after.sumOfSquares / (after.count - 1)).toBeCloseTo(1, 4);
        },
      ),
      { seed: 25 },
    );
  });

  it("names a step without trained tokens", () => {
    const error = (() => {
      try {
        return whiten([1, 2], maskedMoments([1, 2], [0, 0]), { shiftMean: true, step: 7 });
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(SlimeError.is(error, "trainer.numeric") && error.details.step).toBe(7);
  });
});
