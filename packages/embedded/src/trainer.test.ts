import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Collective, LossConfig, Op, OptimizerConfig, RankBatch, TrainerInit, TrainStepRequest } from "@slime/backend";
import { selectRows } from "@slime/backend";
import { SlimeError } from "@slime/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { memoryCollectives, soloCollective } from "./collective.js";
import { StepLoss } from "./micro-batch-loss.js";
import { packSamples } from "./packing.js";
import { defaultLoss, defaultOptimizer, modelDirectory, randomColumns, rankBatch, referenceLogProbs, tinyConfig } from "./testing/index.js";
import { EmbeddedTrainer } from "./trainer.js";
import { initialWeights } from "./weights.js";

const config = tinyConfig({ initStd: 0.3 });
let root = "";
let model = "";
beforeAll(async () => {
  ({ root, model } = await modelDirectory(config));
});
afterAll(() => rm(root, { recursive: true, force: true }));

let ops = 0;
const op = (opId = `op-${ops++}`): Op => ({ opId, timeoutMs: 10_000 });

interface Setup {
  readonly collective?: Collective;
  readonly loss?: Partial<LossConfig>;
  readonly optimizer?: Partial<OptimizerConfig>;
  readonly init?: Partial<TrainerInit>;
}

async function trainer({ collective = soloCollective, loss, optimizer, init }: Setup = {}): Promise<EmbeddedTrainer> {
  const made = new EmbeddedTrainer({ collective });
  await made.init(op(), {
    hfCheckpoint: model,
    fromScratch: true,
    seed: 5,
    load: null,
    refLoad: null,
    loss: { ...defaultLoss, ...loss },
    optimizer: { ...defaultOptimizer, ...optimizer },
    ...init,
  });
  return made;
}

function step(batch: RankBatch, overrides: Partial<TrainStepRequest> = {}): TrainStepRequest {
  return {
    batch,
    globalBatchSize: batch.columns.rows,
    globalTokens: batch.columns.lossMask_T.length,
    oldLogProbs: null,
    refLogProbs: null,
    ...overrides,
  };
}

let exported = 0;
async function weights(of: EmbeddedTrainer): Promise<Uint8Array> {
  const result = await of.exportWeights(op(), { version: exported++, directory: root });
  if (result === null) throw new Error("rank 0 exports");
  return new Uint8Array(await readFile(result.path));
}

describe("EmbeddedTrainer", () => {
  it("starts from the seed alone, and gives the reference's log-probs in column order", async () => {
    const rank = await trainer();
    const batch = rankBatch(randomColumns(config, 6, 1), { microBatchSize: 4 });
    const got = await rank.computeLogProbs(op(), { tag: "actor", batch });
    const packed = packSamples(batch.columns, [0, 1, 2, 3, 4, 5]);
    const want = referenceLogProbs(config, initialWeights(config, 5), packed, 1).logProbs_T;
    want.forEach((value, t) => {
      expect(got?.values_T[t]).toBeCloseTo(value, 5);
    });
    expect(await weights(await trainer())).toEqual(await weights(rank));
    expect(await weights(await trainer({ init: { seed: 6 } }))).not.toEqual(await weights(rank));
  });

  it("does not depend on how rows are cut into micro-batches, beyond rounding", async () => {
    const columns = randomColumns(config, 8, 2);
    const results = await Promise.all(
      [8, 3].map(async (microBatchSize) => (await trainer()).trainStep(op(), step(rankBatch(columns, { microBatchSize })))),
    );
    for (const name of ["loss", "pg_loss", "entropy_loss", "grad_norm", "train_rollout_logprob_abs_diff"]) {
      expect(results[0]?.metrics[name], name).toBeCloseTo(results[1]?.metrics[name] ?? Number.NaN, 5);
    }
  });

  it("raises the log-probs of rows with positive advantage", async () => {
    const rank = await trainer({ optimizer: { lr: 1e-2 } });
    const columns = randomColumns(config, 4, 3);
    const batch = rankBatch(columns, { advantages_N: Float32Array.of(1, 1, -1, -1) });
    const before = await rank.computeLogProbs(op(), { tag: "actor", batch });
    for (let i = 0; i < 5; i++) await rank.trainStep(op(), step(batch, { oldLogProbs: before }));
    const after = await rank.computeLogProbs(op(), { tag: "actor", batch });
    const mean = (values: Float32Array | undefined, from: number, to: number) =>
      (values ?? new Float32Array()).slice(columns.responseOffsets_N[from], columns.responseOffsets_N[to]).reduce((a, b) => a + b, 0);
    expect(mean(after?.values_T, 0, 2)).toBeGreaterThan(mean(before?.values_T, 0, 2));
    expect(mean(after?.values_T, 2, 4)).toBeLessThan(mean(before?.values_T, 2, 4));
  });

  it("T1: two ranks end with the same bits as each other, and with one rank's result but for rounding", async () => {
    const columns = randomColumns(config, 8, 4);
    const advantages_N = Float32Array.from({ length: 8 }, (_, i) => Math.sin(i + 1));
    const loss: Partial<LossConfig> = { normalizeAdvantages: true, entropyCoef: 0.01, calculatePerTokenLoss: true };
    const shared = { globalBatchSize: 8, globalTokens: columns.lossMask_T.length };
    const alone = await trainer({ loss });
    const single = await alone.trainStep(op(), step(rankBatch(columns, { advantages_N }), shared));
    const pair = await Promise.all(memoryCollectives(2).map((collective) => trainer({ collective, loss })));
    const id = "shared-op";
    const results = await Promise.all(
      pair.map((rank, r) => {
        const mine = [0, 1, 2, 3].map((i) => r * 4 + i);
        const half = selectRows(
          [columns],
          mine.map((row) => ({ part: 0, row })),
        );
        return rank.trainStep(
          op(id),
          step(rankBatch(half, { advantages_N: Float32Array.from(mine, (i) => advantages_N[i] ?? 0), microBatchSize: 2 }), shared),
        );
      }),
    );
    expect(results[0]?.metrics).toEqual(results[1]?.metrics);
    for (const [name, value] of Object.entries(single.metrics)) expect(results[0]?.metrics[name], name).toBeCloseTo(value, 5);
    const batch = rankBatch(columns);
    const [a, b] = await Promise.all(pair.map((rank) => rank.computeLogProbs(op(), { tag: "actor", batch })));
    expect(a).toEqual(b);
    const c = await alone.computeLogProbs(op(), { tag: "actor", batch });
    c?.values_T.forEach((value, t) => {
      expect(a?.values_T[t]).toBeCloseTo(value, 2);
    });
  });

  it("T2: a loss that is not a number is refused and changes nothing", async () => {
    const rank = await trainer();
    const columns = randomColumns(config, 4, 5);
    const before = await weights(rank);
    const bad = rank.trainStep(op(), step(rankBatch(columns, { advantages_N: Float32Array.of(1, Number.NaN, 0, 0) })));
    await expect(bad).rejects.toSatisfy((error) => SlimeError.is(error, "trainer.numeric") && error.details.step === 1);
    expect(await weights(rank)).toEqual(before);
    expect((await rank.trainStep(op(), step(rankBatch(columns)))).step).toBe(1);
  });

  it("B2: a repeated op answers as before and steps once", async () => {
    const rank = await trainer();
    const request = step(rankBatch(randomColumns(config, 4, 6)));
    const [first, second] = await Promise.all([rank.trainStep(op("same"), request), rank.trainStep(op("same"), request)]);
    expect(second).toEqual(first);
    expect((await rank.trainStep(op("same"), request)).step).toBe(1);
    expect((await rank.trainStep(op(), request)).step).toBe(2);
  });

  it("resumes from its checkpoint with the same bits, moments, moved reference and record included", async () => {
    const setup: Setup = {
      loss: { useKlLoss: true, klLossCoef: 0.1, klLossType: "low_var_kl" },
      init: { refLoad: model },
      optimizer: { weightDecay: 0.1, lrWarmupSteps: 3 },
    };
    const [one, two] = [await trainer(setup), await trainer(setup)];
    const batches = [7, 8, 9].map((seed, rolloutId) => rankBatch(randomColumns(config, 4, seed), { rolloutId }));
    const advance = async (rank: EmbeddedTrainer, batch: RankBatch) => {
      const refLogProbs = await rank.computeLogProbs(op(), { tag: "ref", batch });
      return rank.trainStep(op(), step(batch, { refLogProbs }));
    };
    const [a, b, c] = batches;
    if (!a || !b || !c) throw new Error("three batches");
    await advance(one, a);
    await one.updateRef(op());
    await advance(one, b);
    const directory = join(root, "step-2");
    const { files } = await one.save(op(), { directory, rolloutId: 1 });
    expect([...files].sort()).toEqual((await readdir(directory)).sort());
    expect((await readdir(join(directory, "model"))).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect((await two.load(op(), { directory })).step).toBe(2);
    expect(await advance(two, c)).toEqual(await advance(one, c));
    expect(await weights(two)).toEqual(await weights(one));
    const again = join(root, "step-3");
    await two.save(op(), { directory: again, rolloutId: 2 });
    const record = (await readFile(join(again, "applied-00000.jsonl"), "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as unknown);
    expect(record).toEqual(
      [1, 2, 3].map((at) => ({
        step: at,
        rolloutId: at - 1,
        instances: [
          ["0:0", 2],
          ["0:1", 2],
        ],
      })),
    );
    const third = await trainer({ init: { load: again, fromScratch: false, hfCheckpoint: join(again, "model") } });
    expect(await weights(third)).toEqual(await weights(one));
  });

  it("keeps the last two exports, also when one is made again", async () => {
    const rank = await trainer();
    const directory = await mkdtemp(join(root, "exports-"));
    for (const version of [1, 2, 2, 3, 3, 3]) await rank.exportWeights(op(), { version, directory });
    expect((await readdir(directory)).sort()).toEqual(["weights-2.bin", "weights-3.bin"]);
    await rank.close();
    expect(await readdir(directory)).toEqual([]);
  });

  it("refuses what the model cannot hold, with the sample named", async () => {
    const rank = await trainer();
    const columns = randomColumns(config, 2, 10);
    columns.tokens_L[0] = 99;
    await expect(rank.trainStep(op(), step(rankBatch(columns)))).rejects.toThrow(
      /sample 0 \(instance 0:0\) has token id 99, the vocabulary 11/,
    );
    await expect(rank.computeLogProbs(op(), { tag: "ref", batch: rankBatch(randomColumns(config, 2, 11)) })).rejects.toThrow(/--ref-load/);
    await expect(rank.load(op(), { directory: join(root, "nowhere") })).rejects.toSatisfy((error) => SlimeError.is(error, "file.missing"));
  });

  it("T3: an abort between micro-batches ends the op, and the trainer goes on", async () => {
    const rank = await trainer();
    const batch = rankBatch(randomColumns(config, 6, 12), { microBatchSize: 1 });
    const controller = new AbortController();
    const running = rank.trainStep({ ...op(), signal: controller.signal }, step(batch));
    setImmediate(() => controller.abort(new Error("stop")));
    await expect(running).rejects.toThrow("stop");
    expect((await rank.trainStep(op(), step(batch))).step).toBe(1);
  });
});

describe("StepLoss", () => {
  it.each<[string, Partial<LossConfig>]>([
    [
      "grpo with dual clip, entropy and KL loss",
      { epsClipC: 3, entropyCoef: 0.02, useKlLoss: true, klLossCoef: 0.3, klLossType: "low_var_kl", useUnbiasedKl: true },
    ],
    ["gspo", { advantageEstimator: "gspo" }],
    ["per token with TIS", { calculatePerTokenLoss: true, useTis: true }],
    [
      "reinforce++ with KL in the reward, whitened",
      { advantageEstimator: "reinforce_plus_plus", klCoef: 0.1, normalizeAdvantages: true, gamma: 0.9 },
    ],
  ])("%s: gradients are the finite differences of the loss", async (_, overrides) => {
    const columns = randomColumns(config, 5, 13);
    const tokens = columns.lossMask_T.length;
    const wave = (shift: number) => Float32Array.from({ length: tokens }, (_, t) => -2 + 0.4 * Math.sin(t * 1.7 + shift));
    const request = step(rankBatch(columns), { oldLogProbs: { values_T: wave(1) }, refLogProbs: { values_T: wave(2) } });
    const rows = Int32Array.of(0, 1, 2, 3, 4);
    const evaluate = async (logProbs_T: Float32Array, entropy_T: Float32Array) => {
      const loss = await StepLoss.begin(request, { ...defaultLoss, ...overrides }, soloCollective, {
        key: "k",
        step: 1,
        signal: new AbortController().signal,
      });
      return { gradients: loss.gradients(rows, { logProbs_T, entropy_T }), value: loss.sums.get("loss") ?? Number.NaN };
    };
    const [logProbs, entropy] = [wave(0), wave(3)];
    const { gradients } = await evaluate(logProbs, entropy);
    const h = 2 ** -10;
    const shifted = (values: Float32Array, t: number, by: number) => values.map((v, i) => (i === t ? v + by : v));
    for (let t = 0; t < tokens; t++) {
      const numeric =
        ((await evaluate(shifted(logProbs, t, h), entropy)).value - (await evaluate(shifted(logProbs, t, -h), entropy)).value) / (2 * h);
      expect(gradients.dLogProbs_T[t]).toBeCloseTo(numeric, 3);
      const numericEntropy =
        ((await evaluate(logProbs, shifted(entropy, t, h))).value - (await evaluate(logProbs, shifted(entropy, t, -h))).value) / (2 * h);
      expect(gradients.dEntropy_T[t]).toBeCloseTo(numericEntropy, 3);
    }
  });
});
