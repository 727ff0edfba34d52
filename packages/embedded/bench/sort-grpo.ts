/**
 * GRPO on "sort four digits", from scratch, trainer and sampler in this one process: how the quickstart's hyper-parameters were chosen.
 * node packages/embedded/dist-bench/... is not needed: run with `npx vitest` never; use `node --import` of the build as bench/run.mjs does.
 */
import { groupNormalise } from "@slime/algorithms";
import { type OptimizerConfig, type Sample, toColumns } from "@slime/backend";
import { seededRandom } from "@slime/core";
import { Arena, EmbeddedTrainer, type ModelConfig, soloCollective } from "@slime/embedded";
import { defaultLoss, defaultOptimizer, modelDirectory, rankBatch, tinyConfig } from "@slime/embedded/testing";
import { readFile, rm } from "node:fs/promises";
import { BenchSampler, type Drawn } from "./sampler.js";

const alphabet = "0123456789=$";
const endToken = alphabet.indexOf("$");
const answerLength = 5;

interface Settings {
  readonly model: Partial<ModelConfig>;
  readonly optimizer: Partial<OptimizerConfig>;
  readonly entropyCoef: number;
  readonly steps: number;
  readonly prompts: number;
  readonly group: number;
  /** Optimizer steps a rollout is cut into. */
  readonly stepsPerRollout: number;
  readonly exactBonus: number;
  readonly shuffleRewards: boolean;
  readonly divideBySpread: boolean;
}

const settings: Settings = {
  model: { hiddenSize: 64, intermediateSize: 128, layers: 2, heads: 4, kvHeads: 2, headDim: 16, vocabSize: 16, initStd: 0.1, positionsMax: 32 },
  optimizer: { lr: 3e-3, adamBeta2: 0.95 },
  entropyCoef: 0,
  steps: 400,
  prompts: 16,
  group: 8,
  stepsPerRollout: 1,
  exactBonus: 0,
  shuffleRewards: false,
  divideBySpread: true,
  ...(JSON.parse(process.env["SORT_SETTINGS"] ?? "{}") as Partial<Settings>),
};

const encode = (text: string): number[] => [...text].map((c) => alphabet.indexOf(c));
const sorted = (digits: readonly number[]): number[] => [...digits].sort((a, b) => a - b);

/** Every tenth quadruple is held out, by its number. */
const split = (heldOut: boolean): number[] => Array.from({ length: 10_000 }, (_, i) => i).filter((i) => ((i * 7919) % 10 === 3) === heldOut);
const prompt = (n: number): number[] => [...String(n).padStart(4, "0")].map(Number);
const promptTokens = (digits: readonly number[]): number[] => [...digits, ...encode("=")];

function score(digits: readonly number[], drawn: Drawn): { readonly reward: number; readonly exact: boolean } {
  const want = [...sorted(digits), endToken];
  const right = want.filter((token, i) => drawn.tokens[i] === token).length;
  const exact = right === want.length && drawn.tokens.length === want.length;
  return { reward: right / want.length + (exact ? settings.exactBonus : 0), exact };
}

async function run(seed: number): Promise<void> {
  const config = tinyConfig({ ...settings.model, eosTokenIds: [endToken] });
  const { root, model } = await modelDirectory(config);
  const trainer = new EmbeddedTrainer({ collective: soloCollective });
  let ops = 0;
  const op = () => ({ opId: `op-${ops++}`, timeoutMs: 60_000 });
  await trainer.init(op(), {
    hfCheckpoint: model, fromScratch: true, seed, load: null, refLoad: null,
    loss: { ...defaultLoss, entropyCoef: settings.entropyCoef }, optimizer: { ...defaultOptimizer, ...settings.optimizer },
  });
  const arena = new Arena(1 << 22);
  const sampler = new BenchSampler(arena, config);
  const push = async () => {
    const exported = await trainer.exportWeights(op(), { version: 1, directory: root });
    const bytes = await readFile(exported?.path ?? "");
    sampler.weights.set(new Float32Array(new Uint8Array(bytes).buffer));
  };
  const heldOut = split(true);
  const greedy = () => {
    const prompts = heldOut.map(prompt);
    const drawn = sampler.generate(prompts.map(promptTokens), answerLength, endToken, null);
    return drawn.filter((d, i) => score(prompts[i] ?? [], d).exact).length / heldOut.length;
  };
  const random = seededRandom(seed * 1000 + 1);
  const train = split(false);
  await push();
  const start = greedy();
  let [generateMs, trainMs] = [0, 0];
  const began = performance.now();
  const curve: string[] = [];
  let reached = -1;
  for (let rollout = 0; rollout < settings.steps; rollout++) {
    const t0 = performance.now();
    const chosen = Array.from({ length: settings.prompts }, () => prompt(train[Math.floor(random.unit() * train.length)] ?? 0));
    const rows = chosen.flatMap((digits) => Array.from({ length: settings.group }, () => digits));
    const drawn = sampler.generate(rows.map(promptTokens), answerLength, endToken, random);
    const scores = drawn.map((d, i) => score(rows[i] ?? [], d));
    const t1 = performance.now();
    const rewards = scores.map((s) => s.reward);
    if (settings.shuffleRewards) for (let i = rewards.length - 1; i > 0; i--) {
      const j = Math.floor(random.unit() * (i + 1));
      [rewards[i], rewards[j]] = [rewards[j] ?? 0, rewards[i] ?? 0];
    }
    const samples = drawn.map((d, i) => sampleOf(i, Math.floor(i / settings.group), promptTokens(rows[i] ?? []), d, rewards[i] ?? 0));
    const columns = toColumns(samples, null);
    const advantages = Float32Array.from(groupNormalise(columns.rewards_N, columns.groupIndices_N, { divideBySpread: settings.divideBySpread }));
    const batch = rankBatch(columns, { rolloutId: rollout, advantages_N: advantages });
    const result = await trainer.trainStep(op(), { batch, globalBatchSize: columns.rows, globalTokens: columns.lossMask_T.length, oldLogProbs: null, refLogProbs: null });
    trainMs += performance.now() - t1;
    await push();
    generateMs += t1 - t0;
    if ((rollout + 1) % 25 === 0) {
      const exact = greedy();
      if (exact >= 0.85 && reached < 0) reached = rollout + 1;
      const reward = scores.reduce((sum, s) => sum + s.reward, 0) / scores.length;
      curve.push(`${rollout + 1}: reward ${reward.toFixed(2)} greedy ${exact.toFixed(3)} entropy ${(result.metrics["entropy_loss"] ?? 0).toFixed(2)} norm ${(result.metrics["grad_norm"] ?? 0).toFixed(3)}`);
    }
  }
  const seconds = (performance.now() - began) / 1000;
  const final = greedy();
  if (process.env["SORT_VERBOSE"] === "1") process.stdout.write(`${curve.join("\n")}\n`);
  process.stdout.write(
    `seed ${seed}: greedy ${start.toFixed(3)} -> ${final.toFixed(3)} (0.85 at step ${reached}), ${seconds.toFixed(1)} s with evals (generate ${(generateMs / 1000).toFixed(1)} s, train ${(trainMs / 1000).toFixed(1)} s)\n`,
  );
  await trainer.close();
  await rm(root, { recursive: true, force: true });
}

function sampleOf(index: number, groupIndex: number, tokens: readonly number[], drawn: Drawn, reward: number): Sample {
  return {
    groupIndex, index, instanceId: `0:${groupIndex}`, rolloutId: index, prompt: "", promptTokens: tokens, responseTokens: drawn.tokens, response: "", responseLogProbs: drawn.logProbs,
    lossMask: null, weightSpans: [{ version: 1, from: 0, to: drawn.tokens.length, mixed: false }], label: null, reward, status: "completed", failure: null, removeSample: false, metadata: {}, nonGenerationS: 0,
  };
}

for (const seed of (process.env["SORT_SEEDS"] ?? "1,2,3").split(",").map(Number)) await run(seed);
