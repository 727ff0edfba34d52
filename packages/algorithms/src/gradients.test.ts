import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { klKinds } from "./kl.js";
import { logitsGradient, tokenLogProbs } from "./logits.js";
import { objective } from "./objective.js";
import { rolloutMeanWeights } from "./reducers.js";
import { finiteDifference, largestError } from "./testing/index.js";
import { valueLoss } from "./value-loss.js";

const number = (min: number, max: number) => fc.double({ min, max, noNaN: true });

describe("objective", () => {
  const token = fc.record({
    logProb: number(-4, -0.01),
    old: number(-4, -0.01),
    ref: number(-4, -0.01),
    advantage: number(-3, 3),
    mask: fc.constantFrom(0, 1),
    entropy: number(0, 3),
  });

  it("O1: its derivatives are those of the loss", () => {
    fc.assert(
      fc.property(
        fc.array(token, { minLength: 1, maxLength: 6 }),
        fc.constantFrom(...klKinds),
        fc.boolean(),
        fc.constantFrom("ppo" as const, "gspo" as const),
        (tokens, kind, unbiased, policy) => {
          const column = (of: (t: (typeof tokens)[number]) => number) => Float64Array.from(tokens, of);
          const input = {
            logProbs_T: column((t) => t.logProb),
            oldLogProbs_T: column((t) => t.old),
            refLogProbs_T: column((t) => t.ref),
            advantages_T: column((t) => t.advantage),
            mask_T: column((t) => t.mask),
            entropy_T: column((t) => t.entropy),
            lengths_D: [tokens.length],
          };
          // Bounds so wide that no kink lies near: the clip itself is P1's.
          const options = { kind: policy, epsClip: 0.999999, epsClipHigh: 1e6, entropyCoef: 0.03, klLoss: { coef: 0.2, kind, unbiased } };
          const weights_T = rolloutMeanWeights(input, 0.5);
          const result = objective(input, options, weights_T);
          fc.pre((result.metrics.kl_loss ?? 0) < 4);
          const byLogProb = finiteDifference(
            (logProbs_T) => objective({ ...input, logProbs_T }, options, weights_T).loss,
            input.logProbs_T,
          );
          const byEntropy = finiteDifference((entropy_T) => objective({ ...input, entropy_T }, options, weights_T).loss, input.entropy_T);
          expect(largestError(result.gradLogProbs_T, byLogProb)).toBeLessThan(1e-5);
          expect(largestError(result.gradEntropy_T, byEntropy)).toBeLessThan(1e-6);
          expect(result.metrics.loss).toBeCloseTo(
            result.metrics.pg_loss - 0.03 * result.metrics.entropy_loss + 0.2 * (result.metrics.kl_loss ?? 0),
            10,
          );
        },
      ),
      { seed: 31 },
    );
  });

  it("reports the KL but takes no gradient from it at coefficient 0", () => {
    const input = {
      logProbs_T: [-1],
      oldLogProbs_T: [-1],
      refLogProbs_T: [-3],
      advantages_T: [1],
      mask_T: [1],
      entropy_T: [0.5],
      lengths_D: [1],
    };
    const result = objective(
      input,
      { kind: "ppo", epsClip: 0.2, epsClipHigh: 0.2, entropyCoef: 0, klLoss: { coef: 0, kind: "k1", unbiased: false } },
      [1],
    );
    expect(result.metrics.kl_loss).toBe(2);
    expect([...result.gradLogProbs_T]).toEqual([-1]);
    expect([...result.gradEntropy_T]).toEqual([0]);
  });
});

describe("valueLoss", () => {
  it("V1: grad_T is the derivative of the loss", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ value: number(-2, 2), old: number(-2, 2), ret: number(-2, 2), weight: number(0, 1) }), {
          minLength: 1,
          maxLength: 6,
        }),
        (tokens) => {
          const [old, ret, weights] = [tokens.map((t) => t.old), tokens.map((t) => t.ret), tokens.map((t) => t.weight)];
          fc.pre(tokens.every((t) => Math.abs(Math.abs(t.value - t.old) - 0.2) > 1e-3));
          const values = tokens.map((t) => t.value);
          const result = valueLoss(values, old, ret, 0.2, weights);
          // Where both squares are equal the loss has a kink.
          fc.pre(
            tokens.every(
              (t, i) =>
                Math.abs((result.loss_T[i] ?? 0) - (t.value - t.ret) ** 2) > 1e-3 ||
                Math.abs(t.value - t.old) < 0.2 ||
                Math.abs(t.old + Math.sign(t.value - t.old) * 0.2 - t.ret) ** 2 < (t.value - t.ret) ** 2 - 1e-3,
            ),
          );
          const numeric = finiteDifference((x) => valueLoss(x, old, ret, 0.2, weights).loss, values);
          expect(largestError(result.grad_T, numeric)).toBeLessThan(1e-6);
        },
      ),
      { seed: 32 },
    );
  });
});

describe("logits", () => {
  const input = fc.integer({ min: 2, max: 6 }).chain((vocabulary) =>
    fc
      .array(
        fc.record({
          row: fc.array(number(-4, 4), { minLength: vocabulary, maxLength: vocabulary }),
          target: fc.nat(vocabulary - 1),
          keep: fc.option(
            fc.array(fc.nat(vocabulary - 1)).map((ids) => new Set(ids)),
            { nil: null },
          ),
          g: number(-1, 1),
          h: number(-1, 1),
        }),
        { minLength: 1, maxLength: 3 },
      )
      .map((rows) => ({
        logits: rows.flatMap((r) => r.row),
        vocabulary,
        targets_T: rows.map((r) => r.target),
        keep_T: rows.map((r) => r.keep),
        g: rows.map((r) => r.g),
        h: rows.map((r) => r.h),
      })),
  );

  it("G1, G2: probabilities sum to 1, entropy stays within its bounds", () => {
    fc.assert(
      fc.property(input, number(0.5, 2), ({ logits, vocabulary }, temperature) => {
        const row = logits.slice(0, vocabulary);
        const every = {
          logits: row.concat(...Array.from({ length: vocabulary - 1 }, () => row)),
          vocabulary,
          targets_T: row.map((_, j) => j),
          temperature,
        };
        const { logProbs_T, entropy_T } = tokenLogProbs(every);
        expect(logProbs_T.reduce((sum, lp) => sum + Math.exp(lp), 0)).toBeCloseTo(1, 10);
        expect(entropy_T[0]).toBeGreaterThanOrEqual(0);
        expect(entropy_T[0]).toBeLessThanOrEqual(Math.log(vocabulary) + 1e-12);
      }),
      { seed: 33 },
    );
  });

  it("G3, G4: the gradient is the derivative and sums to 0 in each row", () => {
    fc.assert(
      fc.property(input, number(0.5, 2), ({ g, h, ...rest }, temperature) => {
        const at = { ...rest, temperature };
        const gradient = logitsGradient(at, g, h);
        const total = (logits: Float64Array) => {
          const { logProbs_T, entropy_T } = tokenLogProbs({ ...at, logits });
          return logProbs_T.reduce((sum, lp, t) => sum + lp * (g[t] ?? 0) + (entropy_T[t] ?? 0) * (h[t] ?? 0), 0);
        };
        expect(largestError(gradient, finiteDifference(total, at.logits))).toBeLessThan(1e-6);
        for (const t of rest.targets_T.keys()) {
          const row = gradient.subarray(t * rest.vocabulary, (t + 1) * rest.vocabulary);
          expect(Math.abs(row.reduce((sum, g_j) => sum + g_j, 0))).toBeLessThan(1e-12);
        }
      }),
      { seed: 34 },
    );
  });
});
