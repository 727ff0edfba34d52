import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Packing, perRankLayout, type ScheduleOptions, scheduleSteps } from "./dp-schedule.js";
import { balancedPartitions } from "./karmarkar-karp.js";
import { firstFit, splitBins } from "./packing.js";
import { passAtK } from "./statistics.js";

const lengths = fc.array(fc.integer({ min: 1, max: 500 }), { minLength: 1, maxLength: 40 });
const sumOf = (bin: readonly number[], of: readonly number[]) => bin.reduce((sum, i) => sum + (of[i] ?? NaN), 0);
const indices = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("balancedPartitions", () => {
  it("Q1–Q4: a partition, without empty parts, of equal sizes when asked, and deterministic", () => {
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 8 }), fc.boolean(), (weights, k, equalSize) => {
        fc.pre(weights.length >= k && (!equalSize || weights.length % k === 0));
        const parts = balancedPartitions(weights, k, { equalSize });
        expect(parts.length).toBe(k);
        expect(parts.flat().sort((a, b) => a - b)).toEqual(indices(weights.length));
        expect(parts.every((part) => part.length > 0 && (!equalSize || part.length * k === weights.length))).toBe(true);
        expect(balancedPartitions([...weights], k, { equalSize })).toEqual(parts);
        const sums = parts.map((part) => sumOf(part, weights));
        expect(sums).toEqual([...sums].sort((a, b) => b - a));
      }),
      { seed: 41, numRuns: 300 },
    );
  });
});

describe("packing", () => {
  it("B1–B3: bins hold each index once and keep the cap; splitting makes nothing longer", () => {
    fc.assert(
      fc.property(lengths, fc.integer({ min: 1, max: 900 }), fc.integer({ min: 1, max: 50 }), (sizes, cap, count) => {
        const bins = firstFit(sizes, cap);
        const split = splitBins(bins, count, sizes);
        for (const out of [bins, split]) {
          expect(out.flat().sort((a, b) => a - b)).toEqual(indices(sizes.length));
          for (const bin of out) expect(bin.length > 0 && (sumOf(bin, sizes) <= cap || bin.length === 1)).toBe(true);
        }
        expect(split.length).toBe(Math.max(bins.length, Math.min(count, sizes.length)));
      }),
      { seed: 42, numRuns: 300 },
    );
  });
});

const packing = fc.oneof(
  fc.record({ kind: fc.constant("static" as const), microBatchSize: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant("dynamic" as const), tokensPerGpuMax: fc.integer({ min: 20, max: 900 }), balanceByFlops: fc.boolean() }),
) as fc.Arbitrary<Packing>;

describe("scheduleSteps", () => {
  it("D1–D5: steps of whole rollouts, ranks in step, caps kept, nothing lost silently", () => {
    let scheduled = 0;
    fc.assert(
      fc.property(
        fc.array(fc.record({ tokens: fc.integer({ min: 1, max: 400 }), rolloutId: fc.nat(12) }), { minLength: 1, maxLength: 40 }),
        fc.record({
          globalBatchSize: fc.integer({ min: 1, max: 6 }),
          dataParallelSize: fc.integer({ min: 1, max: 3 }),
          contextParallelSize: fc.constantFrom(1, 2),
          virtualPipelineSize: fc.constantFrom(1, 2),
          microBatchGroupSize: fc.constantFrom(1, 2),
          packing,
          balanceData: fc.boolean(),
        }),
        (samples, partial) => {
          const options: ScheduleOptions = { ...partial, sampleFlops: (tokens) => 100 * tokens + tokens * tokens };
          let schedule: ReturnType<typeof scheduleSteps>;
          try {
            schedule = scheduleSteps(samples, options);
          } catch (error) {
            expect(SlimeError.is(error, "config.invalid")).toBe(true);
            return;
          }
          scheduled++;
          const all = schedule.steps.flatMap((step) => step.ranks.flat(2)).concat(schedule.dropped);
          expect(all.sort((a, b) => a - b)).toEqual(indices(samples.length));
          const stepOf = new Map<number, number>();
          schedule.steps.forEach((step, s) => {
            const multiple = options.virtualPipelineSize > 1 ? options.microBatchGroupSize : 1;
            expect(new Set(step.ranks.map((rank) => rank.length)).size).toBe(1);
            expect((step.ranks[0]?.length ?? 0) % multiple).toBe(0);
            const ids = new Set(step.ranks.flat(2).map((i) => samples[i]?.rolloutId ?? -1));
            expect(ids.size).toBe(step.rollouts);
            for (const id of ids) expect(stepOf.get(id) ?? s).toBe(s);
            for (const id of ids) stepOf.set(id, s);
            for (const bin of step.ranks.flat()) {
              const kept = options.packing;
              if (kept.kind === "static") expect(bin.length).toBeLessThanOrEqual(kept.microBatchSize);
              else if (!kept.balanceByFlops)
                expect(
                  bin.length === 1 ||
                    sumOf(
                      bin,
                      samples.map((x) => x.tokens),
                    ) <=
                      kept.tokensPerGpuMax * options.contextParallelSize,
                ).toBe(true);
            }
          });
          const droppedIds = new Set(schedule.dropped.map((i) => samples[i]?.rolloutId));
          expect(droppedIds.size).toBeLessThan(options.globalBatchSize);
          const layout = perRankLayout(schedule, options.dataParallelSize);
          for (const [r, partition] of layout.partitions.entries())
            expect(layout.microBatchIndices[r]?.flat()).toEqual(indices(partition.length));
        },
      ),
      { seed: 43, numRuns: 400 },
    );
    expect(scheduled).toBeGreaterThan(50);
  });
});

describe("passAtK", () => {
  it("equals the count over all draws", () => {
    const draws = (n: number, k: number, from = 0): number[][] =>
      k === 0
        ? [[]]
        : indices(n)
            .slice(from)
            .flatMap((i) => draws(n, k - 1, i + 1).map((rest) => [i, ...rest]));
    for (let n = 1; n <= 6; n++)
      for (let correct = 0; correct <= n; correct++)
        for (let k = 1; k <= n; k++)
          expect(passAtK(n, correct, k)).toBeCloseTo(
            draws(n, k).filter((draw) => draw.some((i) => i < correct)).length / draws(n, k).length,
            12,
          );
  });
});
