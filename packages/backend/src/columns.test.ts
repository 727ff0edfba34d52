import { InvariantError, SlimeError } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { selectRows, summarise, toColumns } from "./columns.js";
import { sampleOf } from "./testing/samples.js";

const lengths = fc.record({ prompt: fc.integer({ min: 1, max: 6 }), response: fc.integer({ min: 0, max: 9 }), cut: fc.nat(9) });

describe("columns", () => {
  it("C1: keep every row's tokens, masks, log-probs and spans", () => {
    fc.assert(
      fc.property(fc.array(lengths, { minLength: 1, maxLength: 8 }), (shapes) => {
        const samples = shapes.map((shape, index) => sampleOf(index, shape));
        const columns = toColumns(samples, null);
        for (const [row, sample] of samples.entries()) {
          const tokens = columns.tokens_L.subarray(columns.tokenOffsets_N[row], columns.tokenOffsets_N[row + 1]);
          expect([...tokens]).toEqual([...sample.promptTokens, ...sample.responseTokens]);
          const logProbs = columns.rolloutLogProbs_T.subarray(columns.responseOffsets_N[row], columns.responseOffsets_N[row + 1]);
          expect([...logProbs]).toEqual(sample.responseLogProbs.map(Math.fround));
        }
      }),
    );
  });

  it("C1: any rows of any parts, in any order, are the rows themselves", () => {
    fc.assert(
      fc.property(fc.array(lengths, { minLength: 2, maxLength: 8 }), fc.array(fc.nat(7), { maxLength: 12 }), (shapes, wanted) => {
        const samples = shapes.map((shape, index) => sampleOf(index, shape));
        const half = Math.ceil(samples.length / 2);
        const parts = [toColumns(samples.slice(0, half), null), toColumns(samples.slice(half), null)];
        const rows = wanted.map((at) => at % samples.length);
        const picked = selectRows(
          parts,
          rows.map((at) => (at < half ? { part: 0, row: at } : { part: 1, row: at - half })),
        );
        expect(picked).toEqual(
          toColumns(
            rows.flatMap((at) => samples[at] ?? []),
            null,
          ),
        );
      }),
    );
  });

  it("refuses a sample without a usable reward, naming it", () => {
    const sample = { ...sampleOf(3, { prompt: 1, response: 2, cut: 1 }), reward: null };
    expect(() => toColumns([sample], null)).toThrow(SlimeError);
    expect(() => toColumns([{ ...sample, reward: Number.NaN }], null)).toThrow(/reward is NaN/);
    expect(() => toColumns([{ ...sample, reward: { acc: 1 } }], null)).toThrow(/--reward-key/);
    expect(toColumns([{ ...sample, reward: { acc: 1 } }], "acc").rewards_N[0]).toBe(1);
  });

  it("C2: weight spans must cover the response", () => {
    const sample = sampleOf(0, { prompt: 1, response: 4, cut: 2 });
    expect(() => toColumns([{ ...sample, weightSpans: [{ version: 1, from: 0, to: 3, mixed: false }] }], null)).toThrow(InvariantError);
  });

  it("a removed sample trains nothing and keeps its reward", () => {
    const sample = { ...sampleOf(0, { prompt: 1, response: 4, cut: 2 }), removeSample: true };
    expect([...toColumns([sample], null).lossMask_T]).toEqual([0, 0, 0, 0]);
    expect(summarise(sample, null)).toMatchObject({ effectiveLength: 0, reward: sample.reward, weightVersionMin: 1, weightVersionMax: 2 });
  });
});
