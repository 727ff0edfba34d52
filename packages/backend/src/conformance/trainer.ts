import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { causeChain, SlimeError } from "@slime/core";
import { afterAll, describe, expect, it } from "vitest";
import { toColumns } from "../columns.js";
import { sampleOf } from "../testing/samples.js";
import type { ByRank, LossConfig, Op, PerRank, RankBatch, TokenValues, Trainer, TrainerInit, TrainStepRequest } from "../trainer.js";

/** A trainer as the suite drives it: a fresh gang per test. */
export interface TrainerSubject extends AsyncDisposable {
  readonly trainer: Trainer;
  readonly dataParallelSize: number;
  readonly pipelineSize: number;
  readonly init: TrainerInit;
  /** Token ids stay below this. */
  readonly vocabulary: number;
  /** Makes one rank fail during its next `trainStep`; null where the subject's ranks cannot. */
  readonly failRank: ((rank: number) => void) | null;
}

export const conformanceLoss: LossConfig = {
  advantageEstimator: "grpo",
  epsClip: 0.2,
  epsClipHigh: 0.28,
  epsClipC: null,
  klCoef: 0,
  useKlLoss: false,
  klLossCoef: 0,
  klLossType: "k1",
  useUnbiasedKl: false,
  entropyCoef: 0,
  calculatePerTokenLoss: false,
  normalizeAdvantages: false,
  useRolloutLogprobs: false,
  useTis: false,
  tisClip: 2,
  tisClipLow: 0,
  gamma: 1,
  temperature: 1,
};

/** What every backend's trainer does. Each case is one promise of the port; run it from the backend's own test file. */
export function trainerConformance(name: string, start: () => Promise<TrainerSubject>): void {
  const folder = mkdtempSync(join(tmpdir(), "slime-conformance-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  let ops = 0;
  const op = (): Op => ({ opId: `op-${ops++}`, timeoutMs: 60_000 });
  const fresh = () => {
    const path = join(folder, `d${ops++}`);
    mkdirSync(path);
    return path;
  };

  describe(`trainer: ${name}`, () => {
    it("T1: init answers for every rank, and alike", async () => {
      await using subject = await start();
      const infos = await subject.trainer.init(op(), same(subject.init));
      expect(infos.map(({ rank }) => rank)).toEqual(Array.from({ length: subject.trainer.worldSize }, (_, rank) => rank));
      for (const { rank, value } of infos) {
        expect(value).toMatchObject({
          rank,
          worldSize: subject.trainer.worldSize,
          step: 0,
          dataParallelSize: subject.dataParallelSize,
          pipelineSize: subject.pipelineSize,
        });
      }
      expect(subject.trainer.worldSize).toBe(subject.dataParallelSize * subject.pipelineSize);
    });

    it("T2: log-probs come from the last pipeline stage alone, one per response token, the same bits each time", async () => {
      await using subject = await start();
      await subject.trainer.init(op(), same(subject.init));
      const batch = batches(subject);
      const first = await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor"));
      const again = await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor"));
      expect(again).toEqual(first);
      for (const { rank, value } of first) {
        const last = rank >= subject.trainer.worldSize - subject.dataParallelSize;
        expect(value !== null, `rank ${rank}`).toBe(last);
        if (value === null) continue;
        expect(value.values_T.length).toBe(batch[rank % subject.dataParallelSize]?.columns.lossMask_T.length);
        expect(value.values_T.every((logProb) => logProb <= 0 && Number.isFinite(logProb))).toBe(true);
      }
    });

    it("T3: a step moves every rank alike, towards what was rewarded", async () => {
      await using subject = await start();
      await subject.trainer.init(op(), same(subject.init));
      const batch = batches(subject);
      const before = await meanLogProbs(subject, batch, op());
      for (let step = 1; step <= 3; step++) {
        const results = await subject.trainer.trainStep(op(), stepOf(subject, batch));
        for (const { value } of results) {
          expect(value.step).toBe(step);
          expect(value.metrics).toEqual(results[0]?.value.metrics);
        }
        expect(results[0]?.value.metrics["grad_norm"]).toBeGreaterThan(0);
      }
      const after = await meanLogProbs(subject, batch, op());
      expect(after.rewarded - before.rewarded).toBeGreaterThan(after.punished - before.punished);
    });

    it("T4 (B2): a repeated opId answers with the recorded result and applies nothing twice", async () => {
      await using subject = await start();
      await subject.trainer.init(op(), same(subject.init));
      const batch = batches(subject);
      const once = op();
      const first = await subject.trainer.trainStep(once, stepOf(subject, batch));
      const after = await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor"));
      expect(await subject.trainer.trainStep(once, stepOf(subject, batch))).toEqual(first);
      expect(await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor"))).toEqual(after);
      expect((await subject.trainer.trainStep(op(), stepOf(subject, batch)))[0]?.value.step).toBe(2);
    });

    it("T5: what was saved and loaded goes on with the same bits", async () => {
      await using subject = await start();
      await subject.trainer.init(op(), same(subject.init));
      const batch = batches(subject);
      await subject.trainer.trainStep(op(), stepOf(subject, batch));
      const directory = fresh();
      await subject.trainer.save(op(), same({ directory, rolloutId: 0 }));
      const next = await subject.trainer.trainStep(op(), stepOf(subject, batch));
      const after = await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor"));

      await using other = await start();
      const infos = await other.trainer.init(op(), same({ ...other.init, load: directory }));
      expect(infos.every(({ value }) => value.step === 1)).toBe(true);
      expect((await other.trainer.trainStep(op(), stepOf(other, batch)))[0]?.value.metrics).toEqual(next[0]?.value.metrics);
      expect(await other.trainer.computeLogProbs(op(), logProbs(other, batch, "actor"))).toEqual(after);
    });

    it("T6: exports are the weights: equal weights have equal checksums, other weights have others", async () => {
      await using subject = await start();
      await subject.trainer.init(op(), same(subject.init));
      const exported = async (version: number) =>
        (await subject.trainer.exportWeights(op(), same({ version, directory: fresh() }))).flatMap(({ value }) =>
          value === null ? [] : [value.checksum],
        );
      const first = await exported(1);
      expect(first.length).toBeGreaterThan(0);
      expect(await exported(2)).toEqual(first);
      await subject.trainer.trainStep(op(), stepOf(subject, batches(subject)));
      expect(await exported(3)).not.toEqual(first);
    });

    it("T7: the reference stays where it was until it is told to follow", async () => {
      await using subject = await start();
      await subject.trainer.init(op(), same({ ...subject.init, refLoad: subject.init.refLoad ?? subject.init.hfCheckpoint }));
      const batch = batches(subject);
      const before = await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "ref"));
      await subject.trainer.trainStep(op(), stepOf(subject, batch));
      expect(await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "ref"))).toEqual(before);
      await subject.trainer.updateRef(op());
      expect(await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "ref"))).toEqual(
        await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor")),
      );
    });

    it("T8: a loss that is not a number is refused before it touches the weights", async () => {
      await using subject = await start();
      await subject.trainer.init(op(), same(subject.init));
      const batch = batches(subject);
      const before = await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor"));
      const poisoned = batch.map((each) => ({ ...each, advantages_N: each.advantages_N.map(() => Number.NaN) }));
      const failure = await caught(subject.trainer.trainStep(op(), stepOf(subject, poisoned)));
      expect(SlimeError.is(failure, "gang.rank_failed")).toBe(true);
      expect(causeChain(failure).join("\n")).toContain("[trainer.numeric]");
      expect(await subject.trainer.computeLogProbs(op(), logProbs(subject, batch, "actor"))).toEqual(before);
    });

    it("T9 (B1): one failed rank fails the op and is named", async (context) => {
      await using subject = await start();
      const { failRank } = subject;
      if (failRank === null) return context.skip("its ranks cannot be made to fail");
      await subject.trainer.init(op(), same(subject.init));
      const culprit = subject.trainer.worldSize - 1;
      failRank(culprit);
      const failure = await caught(subject.trainer.trainStep(op(), stepOf(subject, batches(subject))));
      expect(failure).toMatchObject({ code: "gang.rank_failed", details: { op: "trainStep", failedRanks: [culprit] } });
    });

    it("T10: log-probs are those of the loss's temperature, or of the one asked for", async () => {
      await using subject = await start();
      const plain = await withTemperature(subject, 1, op());
      const ask = logProbs(subject, batches(subject), "actor");
      const atOne = await subject.trainer.computeLogProbs(op(), ask);
      await using other = await start();
      await withTemperature(other, 0.5, op());
      expect(await other.trainer.computeLogProbs(op(), ask)).not.toEqual(atOne);
      expect(
        await other.trainer.computeLogProbs(
          op(),
          each(other, (replica) => ({ tag: "actor" as const, batch: plain[replica] as RankBatch, temperature: 1 })),
        ),
      ).toEqual(atOne);
    });
  });
}

/** Initialises a subject whose logits are divided by `temperature`; returns its batches. */
async function withTemperature(subject: TrainerSubject, temperature: number, op: Op): Promise<readonly RankBatch[]> {
  await subject.trainer.init(op, same({ ...subject.init, loss: { ...subject.init.loss, temperature } }));
  return batches(subject);
}

export const same = <T>(request: T): PerRank<T> => ({ kind: "same", request });

/** One batch per data-parallel rank: two samples each, the even one rewarded and the odd one punished. */
export function batches(subject: Pick<TrainerSubject, "dataParallelSize" | "vocabulary">): readonly RankBatch[] {
  return Array.from({ length: subject.dataParallelSize }, (_, replica) => {
    const samples = [0, 1].map((at) => {
      const sample = sampleOf(2 * replica + at, { prompt: 3, response: 4 + at, cut: 9 });
      const fold = (id: number) => (id * 7 + at * 3) % subject.vocabulary;
      return { ...sample, promptTokens: [1, 2, 3], responseTokens: sample.responseTokens.map(fold) };
    });
    const columns = toColumns(samples, null);
    return {
      rolloutId: 0,
      columns,
      advantages_N: Float32Array.of(1, -1),
      rolloutMaskSums_N: Float32Array.from(columns.responseLengths_N),
      microBatches: [Int32Array.of(0), Int32Array.of(1)],
    };
  });
}

/** Requests by rank: ranks of one data-parallel index, whatever their pipeline stage, get the same rows. */
function each<T>(subject: Pick<TrainerSubject, "trainer" | "dataParallelSize">, of: (replica: number) => T): PerRank<T> {
  return { kind: "each", requests: Array.from({ length: subject.trainer.worldSize }, (_, rank) => of(rank % subject.dataParallelSize)) };
}

function logProbs(subject: TrainerSubject, batch: readonly RankBatch[], tag: "actor" | "ref") {
  return each(subject, (replica) => ({ tag, batch: batch[replica] as RankBatch }));
}

export function stepOf(
  subject: Pick<TrainerSubject, "trainer" | "dataParallelSize">,
  batch: readonly RankBatch[],
): PerRank<TrainStepRequest> {
  const globalBatchSize = batch.reduce((sum, one) => sum + one.columns.rows, 0);
  const globalTokens = batch.reduce((sum, one) => sum + one.columns.lossMask_T.length, 0);
  return each(subject, (replica) => ({
    batch: batch[replica] as RankBatch,
    globalBatchSize,
    globalTokens,
    oldLogProbs: null,
    refLogProbs: null,
  }));
}

async function meanLogProbs(
  subject: TrainerSubject,
  batch: readonly RankBatch[],
  op: Op,
): Promise<{ readonly rewarded: number; readonly punished: number }> {
  const answers: ByRank<TokenValues | null> = await subject.trainer.computeLogProbs(op, logProbs(subject, batch, "actor"));
  let rewarded = 0;
  let punished = 0;
  for (const { rank, value } of answers) {
    const offsets = batch[rank % subject.dataParallelSize]?.columns.responseOffsets_N;
    for (const [at, logProb] of (value?.values_T ?? []).entries()) {
      if (at < (offsets?.[1] ?? 0)) rewarded += logProb;
      else punished += logProb;
    }
  }
  return { rewarded, punished };
}

async function caught(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("expected a rejection");
}
