import type { SampleSummary } from "@slime/backend";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { assembleBatch, type BatchOptions, type TrainGroup } from "./batch.js";

const options: BatchOptions = {
  estimator: "grpo",
  rewardsNormalization: true,
  grpoStdNormalization: true,
  globalBatchSize: 4,
  dataParallelSize: 2,
  packing: { kind: "static", microBatchSize: 1 },
  balanceData: false,
};

function group(at: number, rewards: readonly number[], more: { readonly length?: number; readonly masked?: boolean } = {}): TrainGroup {
  const length = more.length ?? 3;
  const samples = rewards.map(
    (reward, i): SampleSummary => ({
      index: at * rewards.length + i,
      groupIndex: at,
      rolloutId: at * rewards.length + i,
      instanceId: `0:${at}`,
      status: "completed",
      promptLength: 2,
      responseLength: length,
      effectiveLength: length,
      reward,
      rewards: null,
      weightVersionMin: 1,
      weightVersionMax: 1,
      mixed: false,
      removeSample: false,
      failure: null,
    }),
  );
  return {
    instanceId: `0:${at}`,
    groupIndex: at,
    samples,
    rows: samples.map((_, i) => ({ part: at % 2, row: i })),
    masked: more.masked ?? false,
  };
}

describe("assembling a batch", () => {
  it("normalises per group, deals micro-batches to ranks, sums masks", () => {
    const { steps, remainder } = assembleBatch([group(0, [1, 0]), group(1, [1, 1])], options);
    expect(remainder).toEqual([]);
    expect(steps).toHaveLength(1);
    const [step] = steps;
    expect(step?.globalTokens).toBe(12);
    expect(step?.ranks.map(({ rows }) => rows)).toEqual([
      [
        { part: 0, row: 0 },
        { part: 1, row: 0 },
      ],
      [
        { part: 0, row: 1 },
        { part: 1, row: 1 },
      ],
    ]);
    expect(step?.ranks[0]?.advantages_N[0]).toBeCloseTo(Math.SQRT1_2, 5);
    expect(step?.ranks[1]?.advantages_N[0]).toBeCloseTo(-Math.SQRT1_2, 5);
    expect([...(step?.ranks[0]?.rolloutMaskSums_N ?? [])]).toEqual([3, 3]);
    expect(step?.ranks[0]?.microBatches).toEqual([Int32Array.of(0), Int32Array.of(1)]);
  });

  it("leaves over whole groups that fill no step", () => {
    const groups = [0, 1, 2, 3, 4].map((at) => group(at, [1, 0]));
    const { steps, trained, remainder } = assembleBatch(groups, options);
    expect([steps.length, trained.length, remainder.map(({ instanceId }) => instanceId)]).toEqual([2, 4, ["0:4"]]);
    expect(assembleBatch([group(0, [1, 0])], options)).toMatchObject({ steps: [], remainder: [{ instanceId: "0:0" }] });
  });

  it("a masked group keeps its place and counts no token", () => {
    const [step] = assembleBatch([group(0, [1, 0], { masked: true }), group(1, [1, 0])], options).steps;
    expect(step?.ranks.flatMap(({ masked_N }) => [...masked_N])).toEqual([1, 0, 1, 0]);
    expect([...(step?.ranks[0]?.rolloutMaskSums_N ?? [])]).toEqual([0, 3]);
  });

  it("A1, A2: every row of a kept group lies in one step, one rank, one micro-batch", () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 2, maxLength: 2 }), { minLength: 2, maxLength: 12 }),
        fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 12, maxLength: 12 }),
        fc.boolean(),
        (rewards, lengths, dynamic) => {
          const groups = rewards.map((each, at) => group(at, each, { length: lengths[at] ?? 1 }));
          const { steps, trained, remainder } = assembleBatch(groups, {
            ...options,
            packing: dynamic ? { kind: "dynamic", tokensPerGpuMax: 30, balanceByFlops: false } : options.packing,
            balanceData: dynamic,
          });
          const key = ({ part, row }: { part: number; row: number }, instance: string) => `${instance}/${part}/${row}`;
          const wanted = trained.flatMap((each) => each.rows.map((row) => key(row, "x"))).sort();
          const got = steps.flatMap((step) => step.ranks.flatMap((rank) => rank.rows.map((row) => key(row, "x")))).sort();
          expect(got).toEqual(wanted);
          for (const rank of steps.flatMap((step) => step.ranks))
            expect(rank.microBatches.flatMap((each) => [...each]).sort((a, b) => a - b)).toEqual(rank.rows.map((_, i) => i));
          expect([...trained, ...remainder]).toEqual(groups);
        },
      ),
    );
  });
});
