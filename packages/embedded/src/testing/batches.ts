import { mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { maskSums, rolloutMaskSums } from "@slime/algorithms";
import { type LossConfig, type OptimizerConfig, type RankBatch, type SampleColumns, toColumns } from "@slime/backend";
import { seededRandom } from "@slime/core";
import { type ModelConfig, modelConfigJson } from "../model-config.js";

/** GRPO with upstream's defaults. */
export const defaultLoss: LossConfig = {
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

export const defaultOptimizer: OptimizerConfig = {
  lr: 1e-3,
  lrWarmupSteps: 0,
  weightDecay: 0,
  adamBeta1: 0.9,
  adamBeta2: 0.95,
  adamEps: 1e-8,
  clipGrad: 1,
};

/** `rows` samples of random tokens, prompts and responses of 1 to 5 tokens, two samples a prompt. */
export function randomColumns(config: ModelConfig, rows: number, seed: number): SampleColumns {
  const random = seededRandom(seed);
  const tokens = () => Array.from({ length: 1 + Math.floor(random.unit() * 5) }, () => Math.floor(random.unit() * config.vocabSize));
  return toColumns(
    Array.from({ length: rows }, (_, index) => {
      const responseTokens = tokens();
      return {
        groupIndex: index >> 1,
        index,
        instanceId: `0:${index >> 1}`,
        rolloutId: index,
        prompt: "p",
        promptTokens: tokens(),
        responseTokens,
        response: "r",
        responseLogProbs: responseTokens.map(() => -2 - random.unit()),
        lossMask: null,
        weightSpans: [{ version: 1, from: 0, to: responseTokens.length, mixed: false }],
        label: null,
        reward: random.unit(),
        status: "completed" as const,
        failure: null,
        removeSample: false,
        metadata: {},
        nonGenerationS: 0,
      };
    }),
    null,
  );
}

/** A rank's batch over the columns, advantages given or random, in micro-batches of `microBatchSize` rows. */
export function rankBatch(
  columns: SampleColumns,
  options: { readonly rolloutId?: number; readonly microBatchSize?: number; readonly advantages_N?: Float32Array } = {},
): RankBatch {
  const size = options.microBatchSize ?? columns.rows;
  const random = seededRandom(columns.rows);
  return {
    rolloutId: options.rolloutId ?? 0,
    columns,
    advantages_N: options.advantages_N ?? Float32Array.from({ length: columns.rows }, () => random.unit() * 2 - 1),
    rolloutMaskSums_N: Float32Array.from(
      rolloutMaskSums([...columns.rolloutIds_N], maskSums(columns.lossMask_T, columns.responseLengths_N)),
    ),
    microBatches: Array.from({ length: Math.ceil(columns.rows / size) }, (_, b) =>
      Int32Array.from({ length: Math.min(size, columns.rows - b * size) }, (_, i) => b * size + i),
    ),
  };
}

/** A fresh directory with a config.json and nothing else, as a run from scratch starts from; the caller removes its parent. */
export async function modelDirectory(config: ModelConfig): Promise<{ readonly root: string; readonly model: string }> {
  const root = await mkdtemp(join(tmpdir(), "embedded-"));
  const model = join(root, "hf");
  await mkdir(model);
  await writeFile(join(model, "config.json"), JSON.stringify(modelConfigJson(config)));
  await writeFile(join(model, "tokenizer.json"), "{}");
  return { root, model };
}
