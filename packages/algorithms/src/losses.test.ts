import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { klKinds, klTokens } from "./kl.js";
import { type PolicyLossKind, type PolicyLossOptions, policyLoss } from "./policy-loss.js";
import { maskSums, reduceTokens, rolloutMaskSums, rolloutMeanWeights, tokenMeanWeights, tokenNormaliser } from "./reducers.js";
import { finiteDifference, largestError } from "./testing/index.js";

const number = (min: number, max: number) => fc.double({ min, max, noNaN: true });

/** Sequences of 1–5 tokens with everything a loss asks for. Masks are random, so whole sequences may be masked. */
const batch = fc
  .array(
    fc.array(
      fc.record({
        logProb: number(-4, -0.01),
        old: number(-4, -0.01),
        advantage: number(-3, 3),
        mask: fc.constantFrom(0, 1),
        factor: number(0, 2),
      }),
      { minLength: 1, maxLength: 5 },
    ),
    { minLength: 1, maxLength: 4 },
  )
  .map((sequences) => {
    const tokens = sequences.flat();
    return {
      logProbs_T: Float64Array.from(tokens, (t) => t.logProb),
      oldLogProbs_T: Float64Array.from(tokens, (t) => t.old),
      advantages_T: Float64Array.from(tokens, (t) => t.advantage),
      mask_T: Float64Array.from(tokens, (t) => t.mask),
      factors_T: Float64Array.from(tokens, (t) => t.factor),
      lengths_D: sequences.map((s) => s.length),
    };
  });

const options = fc.record({
  kind: fc.constantFrom<PolicyLossKind>("ppo", "gspo", "cispo"),
  epsClip: number(0.05, 0.5),
  epsClipHigh: number(0.05, 0.8),
  epsClipC: fc.option(number(1.1, 5), { nil: undefined }),
  opsmDelta: fc.option(number(-0.5, 0.5), { nil: undefined }),
});

/** A step of 1e-6 must not cross a kink: away from each bound by more than that. */
function smooth(
  input: { logProbs_T: Float64Array; oldLogProbs_T: Float64Array; mask_T: Float64Array; lengths_D: number[] },
  o: PolicyLossOptions,
): boolean {
  const { ppoKl_T } = policyLoss({ ...input, advantages_T: new Float64Array(input.mask_T.length) }, o, input.mask_T);
  const bounds = [1 - o.epsClip, 1 + o.epsClipHigh, ...(o.epsClipC === undefined ? [] : [o.epsClipC])];
  const far = ppoKl_T.every((d) => bounds.every((bound) => Math.abs(Math.exp(-d) - bound) > 1e-3));
  const meanKl = policyLoss(
    { ...input, advantages_T: new Float64Array(input.mask_T.length) },
    { ...o, kind: "gspo" },
    input.mask_T,
  ).ppoKl_T;
  return far && meanKl.every((d) => Math.abs(d - (o.opsmDelta ?? 99)) > 1e-3);
}

describe("policyLoss", () => {
  it("P1: grad_T is the derivative of the loss", () => {
    fc.assert(
      fc.property(batch, options, (input, o) => {
        fc.pre(smooth(input, o));
        const weights_T = rolloutMeanWeights(input, 0.5);
        const { grad_T } = policyLoss(input, o, weights_T);
        // CISPO holds the clipped ratio constant: its derivative is that of the loss with the ratio frozen.
        const frozen = policyLoss(input, o, weights_T);
        const numeric = finiteDifference((logProbs_T) => {
          if (o.kind !== "cispo") return policyLoss({ ...input, logProbs_T }, o, weights_T).loss;
          return reduceTokens(
            weights_T,
            frozen.loss_T.map((loss, t) => (loss / (input.logProbs_T[t] ?? 1)) * (logProbs_T[t] ?? 0)),
          );
        }, input.logProbs_T);
        expect(largestError(grad_T, numeric)).toBeLessThan(1e-6);
      }),
      { seed: 11, numRuns: 300 },
    );
  });

  it("P2: a token of weight 0 adds nothing", () => {
    fc.assert(
      fc.property(batch, options, (input, o) => {
        const weights_T = new Float64Array(input.mask_T.length);
        const result = policyLoss(input, o, weights_T);
        expect(result.loss).toBe(0);
        expect(result.grad_T.every((g) => g === 0)).toBe(true);
      }),
      { seed: 12 },
    );
  });

  it("P3, P4: the clips bound the loss", () => {
    fc.assert(
      fc.property(batch, options, ({ factors_T: _, ...input }, o) => {
        fc.pre(o.kind !== "cispo");
        const { loss_T } = policyLoss(input, { ...o, opsmDelta: undefined }, input.mask_T);
        loss_T.forEach((loss, t) => {
          const advantage = input.advantages_T[t] ?? 0;
          if (advantage > 0) expect(loss).toBeGreaterThanOrEqual(-(1 + o.epsClipHigh) * advantage - 1e-12);
          if (advantage < 0 && o.epsClipC !== undefined) expect(loss).toBeLessThanOrEqual(o.epsClipC * -advantage + 1e-12);
        });
      }),
      { seed: 13 },
    );
  });

  it("at equal policies the gradient is −weight · advantage", () => {
    const input = { logProbs_T: [-1, -2], oldLogProbs_T: [-1, -2], advantages_T: [0.5, -2], mask_T: [1, 1], lengths_D: [2] };
    const { loss, grad_T } = policyLoss(input, { kind: "ppo", epsClip: 0.2, epsClipHigh: 0.2 }, [0.5, 0.5]);
    expect([...grad_T]).toEqual([-0.25, 1]);
    expect(loss).toBe(0.75);
  });
});

describe("klTokens", () => {
  const pairs = fc.array(fc.record({ logProb: number(-6, -0.01), base: number(-6, -0.01), old: number(-2, -0.01) }), {
    minLength: 1,
    maxLength: 8,
  });

  it("K1, K2: never negative, and 0 at equal policies", () => {
    fc.assert(
      fc.property(pairs, fc.constantFrom(...klKinds), (rows, kind) => {
        const logProbs = rows.map((r) => r.logProb);
        expect([...klTokens(kind, logProbs, logProbs).kl_T].every((k) => k === 0)).toBe(true);
        if (kind !== "k1")
          expect(
            Math.min(
              ...klTokens(
                kind,
                logProbs,
                rows.map((r) => r.base),
              ).kl_T,
            ),
          ).toBeGreaterThanOrEqual(0);
      }),
      { seed: 14 },
    );
  });

  it("K3: grad_T is the derivative, importance-weighted or not", () => {
    fc.assert(
      fc.property(pairs, fc.constantFrom(...klKinds), fc.boolean(), (rows, kind, unbiased) => {
        const base = rows.map((r) => r.base);
        const old = unbiased ? rows.map((r) => r.old) : undefined;
        const logProbs = rows.map((r) => r.logProb);
        const value = klTokens(kind, logProbs, base, old);
        fc.pre(value.kl_T.every((k) => Math.abs(Math.abs(k) - 10) > 1e-2));
        const numeric = finiteDifference((x) => klTokens(kind, x, base, old).kl_T.reduce((sum, k) => sum + k, 0), logProbs);
        expect(largestError(value.grad_T, numeric)).toBeLessThan(1e-6);
      }),
      { seed: 15, numRuns: 300 },
    );
  });
});

describe("reducers", () => {
  it("R1–R3: a rollout's weights sum to the scale, masked tokens weigh nothing, micro-batches change nothing", () => {
    fc.assert(
      fc.property(batch, fc.array(fc.nat(2), { minLength: 4, maxLength: 4 }), (input, ids) => {
        const rolloutIds = ids.slice(0, input.lengths_D.length);
        const rolloutMaskSums_D = rolloutMaskSums(rolloutIds, maskSums(input.mask_T, input.lengths_D));
        const whole = rolloutMeanWeights({ ...input, rolloutMaskSums_D }, 0.25);
        const perRollout = new Map<number, number>();
        let from = 0;
        input.lengths_D.forEach((length, d) => {
          const part = rolloutMeanWeights(
            {
              mask_T: input.mask_T.subarray(from, from + length),
              lengths_D: [length],
              rolloutMaskSums_D: rolloutMaskSums_D.subarray(d, d + 1),
            },
            0.25,
          );
          expect([...part]).toEqual([...whole.subarray(from, from + length)]);
          perRollout.set(rolloutIds[d] ?? -1, (perRollout.get(rolloutIds[d] ?? -1) ?? 0) + part.reduce((sum, w) => sum + w, 0));
          from += length;
        });
        for (const [t, w] of whole.entries()) expect(w === 0).toBe(input.mask_T[t] === 0);
        for (const [d, id] of rolloutIds.entries()) expect(perRollout.get(id)).toBeCloseTo((rolloutMaskSums_D[d] ?? 0) > 0 ? 0.25 : 0, 12);
      }),
      { seed: 16 },
    );
  });

  it("counts each trained token alike per token", () => {
    const sums = maskSums([1, 0, 1, 0, 0], [3, 2]);
    expect([...sums]).toEqual([2, 0]);
    expect(tokenNormaliser(sums)).toBe(3);
    expect([...tokenMeanWeights([1, 0, 1], 0.5)]).toEqual([0.5, 0, 0.5]);
  });
});
