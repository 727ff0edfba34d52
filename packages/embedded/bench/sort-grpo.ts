/**
 * GRPO on examples/sort (put four digits in order), from scratch, trainer and sampler in this one process: how the quickstart's
 * hyper-parameters were chosen. SORT_SETTINGS: JSON over the defaults below; SORT_SEEDS: "1,2,3"; SORT_VERBOSE=1: the curve.
 */

import { readFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { groupNormalise } from "@slime/algorithms";
import { type OptimizerConfig, type Sample, toColumns } from "@slime/backend";
import { seededRandom } from "@slime/core";
import { Arena, EmbeddedTrainer, type ModelConfig, readModelConfig, soloCollective } from "@slime/embedded";
import { defaultLoss, defaultOptimizer, modelDirectory, rankBatch } from "@slime/embedded/testing";
import { BenchSampler, type Drawn } from "./sampler.js";

const example = fileURLToPath(new URL("../../../../examples/sort/", import.meta.url));
/** The tokenizer's entries, by id. */
const entries = ["<pad>", "<bos>", "<eos>", "<unk>", ..."0123456789=+"];
const endToken = entries.indexOf("<eos>");
const answerTokensMax = 5;

interface Row {
  readonly prompt: string;
  readonly label: string;
}
const rowsOf = (file: string): Row[] =>
  readFileSync(`${example}${file}`, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Row);
const encode = (text: string): number[] => [...text].map((c) => entries.indexOf(c));
const decode = (tokens: readonly number[]): string =>
  tokens
    .filter((token) => token !== endToken)
    .map((token) => entries[token] ?? "")
    .join("");

interface Settings {
  readonly model: Partial<ModelConfig>;
  readonly optimizer: Partial<OptimizerConfig>;
  readonly entropyCoef: number;
  readonly steps: number;
  readonly prompts: number;
  readonly group: number;
  readonly exactBonus: number;
  readonly shuffleRewards: boolean;
  readonly divideBySpread: boolean;
}

const settings: Settings = {
  model: {},
  optimizer: { lr: 1e-3, adamBeta2: 0.99 },
  entropyCoef: 0.03,
  steps: 300,
  prompts: 64,
  group: 8,
  exactBonus: 0,
  shuffleRewards: false,
  divideBySpread: false,
  ...(JSON.parse(process.env["SORT_SETTINGS"] ?? "{}") as Partial<Settings>),
};

/** Characters in their place, over the longer of answer and label: 1 is exact, an answer that runs on loses by its length. */
function score({ label }: Row, drawn: Drawn): { readonly reward: number; readonly exact: boolean } {
  const text = decode(drawn.tokens);
  const right = [...label].filter((c, i) => text[i] === c).length;
  const exact = text === label;
  return { reward: right / Math.max(label.length, text.length) + (exact ? settings.exactBonus : 0), exact };
}

const nobody: Row = { prompt: "", label: "" };

async function run(seed: number): Promise<void> {
  const config = { ...(await readModelConfig(`${example}model`)), ...settings.model };
  const { root, model } = await modelDirectory(config);
  const trainer = new EmbeddedTrainer({ collective: soloCollective });
  let ops = 0;
  const op = () => ({ opId: `op-${ops++}`, timeoutMs: 60_000 });
  await trainer.init(op(), {
    hfCheckpoint: model,
    fromScratch: true,
    seed,
    load: null,
    refLoad: null,
    loss: { ...defaultLoss, entropyCoef: settings.entropyCoef },
    optimizer: { ...defaultOptimizer, ...settings.optimizer },
  });
  const arena = new Arena(1 << 22);
  const sampler = new BenchSampler(arena, config);
  const push = async () => {
    const exported = await trainer.exportWeights(op(), { version: 1, directory: root });
    const bytes = await readFile(exported?.path ?? "");
    sampler.weights.set(new Float32Array(new Uint8Array(bytes).buffer));
  };
  const heldOut = rowsOf("heldout.jsonl");
  const greedy = () => {
    const drawn = sampler.generate(
      heldOut.map(({ prompt }) => encode(prompt)),
      answerTokensMax,
      endToken,
      null,
    );
    return drawn.filter((d, i) => score(heldOut[i] ?? nobody, d).exact).length / heldOut.length;
  };
  const random = seededRandom(seed * 1000 + 1);
  const train = rowsOf("train.jsonl");
  await push();
  const start = greedy();
  let [generateMs, trainMs] = [0, 0];
  const began = performance.now();
  const curve: string[] = [];
  let reached = -1;
  for (let rollout = 0; rollout < settings.steps; rollout++) {
    const t0 = performance.now();
    const chosen = Array.from({ length: settings.prompts }, () => train[Math.floor(random.unit() * train.length)] ?? nobody);
    const rows = chosen.flatMap((row) => Array.from({ length: settings.group }, () => row));
    const drawn = sampler.generate(
      rows.map(({ prompt }) => encode(prompt)),
      answerTokensMax,
      endToken,
      random,
    );
    const scores = drawn.map((d, i) => score(rows[i] ?? nobody, d));
    const t1 = performance.now();
    const rewards = scores.map((s) => s.reward);
    if (settings.shuffleRewards)
      for (let i = rewards.length - 1; i > 0; i--) {
        const j = Math.floor(random.unit() * (i + 1));
        [rewards[i], rewards[j]] = [rewards[j] ?? 0, rewards[i] ?? 0];
      }
    const samples = drawn.map((d, i) =>
      sampleOf(i, Math.floor(i / settings.group), encode((rows[i] ?? nobody).prompt), d, rewards[i] ?? 0),
    );
    const columns = toColumns(samples, null);
    const advantages = Float32Array.from(
      groupNormalise(columns.rewards_N, columns.groupIndices_N, { divideBySpread: settings.divideBySpread }),
    );
    const batch = rankBatch(columns, { rolloutId: rollout, advantages_N: advantages });
    const result = await trainer.trainStep(op(), {
      batch,
      globalBatchSize: columns.rows,
      globalTokens: columns.lossMask_T.length,
      oldLogProbs: null,
      refLogProbs: null,
    });
    trainMs += performance.now() - t1;
    await push();
    generateMs += t1 - t0;
    if ((rollout + 1) % 25 === 0) {
      const exact = greedy();
      if (exact >= 0.85 && reached < 0) reached = rollout + 1;
      const reward = scores.reduce((sum, s) => sum + s.reward, 0) / scores.length;
      curve.push(
        `${rollout + 1}: reward ${reward.toFixed(2)} greedy ${exact.toFixed(3)} entropy ${(result.metrics["entropy_loss"] ?? 0).toFixed(2)} norm ${(result.metrics["grad_norm"] ?? 0).toFixed(3)}`,
      );
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
    groupIndex,
    index,
    instanceId: `0:${groupIndex}`,
    rolloutId: index,
    prompt: "",
    promptTokens: tokens,
    responseTokens: drawn.tokens,
    response: "",
    responseLogProbs: drawn.logProbs,
    lossMask: null,
    weightSpans: [{ version: 1, from: 0, to: drawn.tokens.length, mixed: false }],
    label: null,
    reward,
    status: "completed",
    failure: null,
    removeSample: false,
    metadata: {},
    nonGenerationS: 0,
  };
}

for (const seed of (process.env["SORT_SEEDS"] ?? "1,2,3").split(",").map(Number)) await run(seed);
