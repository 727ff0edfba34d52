import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { withoutSlice } from "@slime/rl-config";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { planLines } from "./commands/plan.js";
import { openTrainingSource } from "./run-data.js";
import { readRunFlags } from "./run-flags.js";

const repository = fileURLToPath(new URL("../../../", import.meta.url));
const before = process.cwd();
beforeEach(() => process.chdir(repository));
afterEach(() => process.chdir(before));

describe("the examples' runs", () => {
  const names = readdirSync(`${repository}examples`).filter((name) => existsSync(`${repository}examples/${name}/run.yaml`));
  it.each(names)("%s is a valid configuration with data that can be read", async (name) => {
    const { config } = readRunFlags("sync", ["--config", `examples/${name}/run.yaml`]);
    const source = await openTrainingSource(config);
    expect(source.size).toBeGreaterThanOrEqual(config.rolloutBatchSize);
    await source.close();
    expect(withoutSlice(config.promptData)).toMatch(/\.jsonl$/);
  });
});

describe("slime plan", () => {
  it("says what a run would be", () => {
    const { config } = readRunFlags(
      "async",
      "--config examples/async-balance/run.yaml --num-rollout 20 --async-buffer-size 4 --update-weights-interval 2 --rollout-num-gpus 2 --save-interval 5".split(
        " ",
      ),
    );
    expect(planLines(config, 9_488)).toEqual([
      "command      slime train-async, grpo; embedded trainer, embedded engines",
      "batch        16 prompts × 8 samples = 128 = 128 (global batch) × 1 (steps per rollout)",
      "per rank     128 samples a step, micro-batches of at most 2048 tokens",
      "length       20 rollouts, 20 optimizer steps, 0.03 epochs of 9488 prompts",
      "checkpoints  every 5 rollouts and the last, 3 kept",
      "evaluation   none",
      "lag          at most 2 weight versions (--async-buffer-size 4, --update-weights-interval 2); measured, not enforced",
      "push         requests in flight: retract",
      "placement    3 GPUs (bundles {GPU: 1, CPU: 1}, PACK), in order of node address and GPU index:",
      "             bundle 0: trainer rank 0",
      "             bundle 1: engine 0",
      "             bundle 2: engine 1",
      "             + 1 router (slime's, round_robin), 1 rollout worker (no GPU)",
    ]);
  });
});
