import { SlimeError } from "@slime/core";
import { describe, expect, it } from "vitest";
import { derive, largestLag, loopLength } from "./derived.js";
import { flags, type RunConfig } from "./flags.js";
import { type ConfigInput, flagListing, resolveConfig } from "./resolve.js";
import { editDistance, suggestions } from "./suggest.js";
import { upstreamOnly } from "./upstream.js";

const kinds: Readonly<Record<string, "file" | "directory">> = { model: "directory", "data.jsonl": "file", "test.jsonl": "file" };
const base =
  "--hf-checkpoint model --prompt-data data.jsonl --rollout-batch-size 8 --n-samples-per-prompt 4 --rollout-max-response-len 16 --num-rollout 10 --rm-type exact_match --actor-num-gpus-per-node 1";

function input(words: string, extra: Partial<ConfigInput> = {}): ConfigInput {
  return {
    mode: "sync",
    argv: words.split(" ").filter((word) => word !== ""),
    env: {},
    readFile: (path) => {
      throw new Error(`no such file: ${path}`);
    },
    paths: { kind: (path) => kinds[path] ?? "missing" },
    ...extra,
  };
}

const resolve = (words: string, extra: Partial<ConfigInput> = {}): RunConfig => resolveConfig(input(`${base} ${words}`, extra)).config;

function issuesOf(words: string, extra: Partial<ConfigInput> = {}): readonly string[] {
  try {
    resolveConfig(input(words, extra));
  } catch (error) {
    if (SlimeError.is(error, "config.invalid")) return error.details.issues;
    throw error;
  }
  return [];
}

describe("resolving a configuration", () => {
  it("takes flag before environment before file before default", () => {
    const yaml = "lr: 1e-3\nclip_grad: 0.5\nweight-decay: 0.2\n";
    const { config, explained } = resolveConfig(
      input(`${base} --config run.yaml --lr 1e-5`, {
        env: { SLIME_FLAG_CLIP_GRAD: "0.7", SLIME_FLAG_LR: "9", SLIME_HOME: "/x" },
        readFile: () => yaml,
      }),
    );
    expect([config.lr, config.clipGrad, config.weightDecay, config.adamEps]).toEqual([1e-5, 0.7, 0.2, 1e-8]);
    const where = Object.fromEntries(explained.map(({ row, where }) => [row.name, where]));
    expect([where["lr"], where["clip-grad"], where["weight-decay"], where["adam-eps"]]).toEqual([
      "--lr",
      "SLIME_FLAG_CLIP_GRAD",
      "run.yaml: weight-decay",
      "default",
    ]);
  });

  it("lays several files over each other, the later ones above", () => {
    const files: Readonly<Record<string, string>> = { "run.yaml": "lr: 1e-3\nclip_grad: 0.5\n", "mine.yaml": "clip-grad: 0.25\n" };
    const readFile = (path: string) => files[path] ?? "";
    const config = resolve("--config run.yaml --config=mine.yaml", { readFile });
    expect([config.lr, config.clipGrad]).toEqual([1e-3, 0.25]);
    expect(issuesOf(`${base} --config run.yaml --config run.yaml`, { readFile })).toEqual(["--config run.yaml is given twice"]);
  });

  it("freezes all of it", () => {
    const config = resolve("--eval-interval 2 --eval-prompt-data held test.jsonl");
    expect(Object.isFrozen(config) && Object.isFrozen(config.evalPromptData) && Object.isFrozen(config.evalPromptData[0])).toBe(true);
  });

  it("reads every shape of value from a command line", () => {
    const config = resolve(
      '--rollout_top_k -1 --rollout-stop a b --rollout-stop-token-ids 3 -4 --rollout-shuffle --use-kl-loss=false --lr=0.5 --apply-chat-template-kwargs {"a":1} --eval-interval 1 --eval-prompt-data x test.jsonl --eval-prompt-data y test.jsonl',
    );
    expect(config).toMatchObject({
      rolloutTopK: -1,
      rolloutStop: ["a", "b"],
      rolloutStopTokenIds: [3, -4],
      rolloutShuffle: true,
      useKlLoss: false,
      lr: 0.5,
      applyChatTemplateKwargs: { a: 1 },
      evalPromptData: [
        { name: "x", path: "test.jsonl" },
        { name: "y", path: "test.jsonl" },
      ],
    });
  });

  it("reads lists, maps and numbers from YAML", () => {
    const yaml = "eval-prompt-data: {x: test.jsonl}\neval-interval: 1\nrollout-stop: END\nrollout-stop-token-ids: [1, 2]\nuse_tis: true\n";
    expect(resolve("--config c.yaml", { readFile: () => yaml })).toMatchObject({
      evalPromptData: [{ name: "x", path: "test.jsonl" }],
      rolloutStop: ["END"],
      rolloutStopTokenIds: [1, 2],
      useTis: true,
    });
  });

  it("says everything that is wrong at once, each with its fix", () => {
    expect(
      issuesOf("--rollout-batch-sise 8 --lr fast --num-rollout --seed 1.5 --seed 2 --rollout-temperature 0 --colocate yes loose"),
    ).toEqual([
      "--rollout-batch-sise is no flag; did you mean --rollout-batch-size?",
      "--num-rollout needs a value",
      "--seed is given twice",
      "--colocate takes no value, got yes loose",
      "--hf-checkpoint must be given: Hugging Face directory: config, tokenizer, and weights unless --from-scratch",
      "--seed: must be a whole number, got 1.5",
      "--prompt-data must be given: JSONL of prompts; path@[a:b] takes a slice",
      "--rollout-batch-size must be given: prompts per rollout",
      "--rollout-temperature: must be greater than 0, got 0",
      "--rollout-max-response-len must be given: tokens of an answer at most",
      '--lr: must be a number, got "fast"',
      "--n-samples-per-prompt 1 with group-relative advantages gives every sample advantage 0: raise it, or --disable-rewards-normalization",
      "one of --rm-type and --custom-rm-path must say how answers are scored",
    ]);
  });

  it("finds contradictions of sound values beside wrong ones, and none that hang on a wrong one", () => {
    expect(issuesOf(`${base.replace("size 8", "size eight")} --global-batch-size 12 --kl-loss-coef 0.1 --ref-load nowhere`)).toEqual([
      '--rollout-batch-size: must be a whole number, got "eight"',
      "--kl-loss-coef has no effect without --use-kl-loss",
      "--ref-load: nothing uses a reference (give --use-kl-loss or --kl-coef)",
      "--ref-load: nowhere does not exist; name a directory that is there",
    ]);
    expect(issuesOf(`${base} --lr fast --eval-interval 2 --prompt-data nowhere.jsonl`)).toEqual([
      "--prompt-data is given twice",
      '--lr: must be a number, got "fast"',
      "--eval-interval needs --eval-prompt-data NAME PATH",
    ]);
  });

  it("a misspelt choice is told the near one", () => {
    expect(issuesOf(base.replace("exact_match", "exactmatch"))).toEqual([
      '--rm-type: must be one of exact_match, boxed_exact_match, got "exactmatch"; did you mean exact_match?',
    ]);
  });

  const one = (words: string, extra: Partial<ConfigInput> = {}) => issuesOf(`${base} ${words}`, extra);
  const async = { mode: "async" } as const;
  it.each<[string, readonly string[], string]>([
    [
      "batch equation, both given",
      one("--global-batch-size 16 --num-steps-per-rollout 4"),
      "the batch equation does not hold: rollout_batch_size × n_samples_per_prompt = 8 × 4 = 32, but global_batch_size × num_steps_per_rollout = 16 × 4 = 64; leave --global-batch-size out to derive it (8)",
    ],
    [
      "batch equation, remainder",
      one("--global-batch-size 12"),
      "the batch equation does not hold: rollout_batch_size × n_samples_per_prompt = 8 × 4 = 32 is not a multiple of --global-batch-size 12; nearest that fit: 8, 16, 4",
    ],
    [
      "steps",
      one("--num-steps-per-rollout 5"),
      "rollout_batch_size × n_samples_per_prompt = 8 × 4 = 32 does not divide into --num-steps-per-rollout 5: change one of the three",
    ],
    [
      "ranks",
      one("").length === 0 ? issuesOf(base.replace("per-node 1", "per-node 3")) : [],
      "an optimizer step of 32 samples does not divide over 3 data-parallel ranks (--actor-num-nodes × --actor-num-gpus-per-node)",
    ],
    ["micro-batch", one("--micro-batch-size 5"), "32 samples per rank and step do not divide into micro-batches of --micro-batch-size 5"],
    [
      "kl exclusive",
      one("--use-kl-loss --kl-coef 0.1 --kl-loss-coef 0.1"),
      "--kl-coef and --kl-loss-coef exclude each other: the KL goes into the reward or into the loss",
    ],
    ["colocate", one("--colocate"), "--colocate is not built yet: give trainer and engines GPUs of their own"],
    ["colocate async", one("--colocate", async), "--colocate contradicts train-async: one GPU cannot generate and train at once"],
    [
      "async knobs in sync",
      one("--async-buffer-size 2"),
      "--async-buffer-size is read by slime train-async only: slime train generates with the newest weights and pushes after every rollout",
    ],
    ["policy alone", one("--staleness-policy mask", async), "--staleness-policy is read only with --max-staleness"],
    ["eval without data", one("--eval-interval 2"), "--eval-interval needs --eval-prompt-data NAME PATH"],
    ["eval odd", one("--eval-prompt-data a test.jsonl b"), "--eval-prompt-data takes pairs of NAME PATH, got a test.jsonl b"],
    ["eval data without interval", one("--eval-prompt-data a test.jsonl"), "--eval-prompt-data has no effect without --eval-interval"],
    [
      "reinforce++",
      one("--advantage-estimator reinforce_plus_plus"),
      "--advantage-estimator reinforce_plus_plus needs --normalize-advantages",
    ],
    ["reference of its own", one("--ref-num-gpus 1"), "--ref-num-gpus: nothing uses a reference (give --use-kl-loss or --kl-coef)"],
    [
      "reference that moves",
      one("--use-kl-loss --ref-num-gpus 1 --ref-update-interval 2"),
      "--ref-update-interval needs the reference in the trainer's ranks: leave --ref-num-gpus out",
    ],
    [
      "tis",
      one("--use-tis --use-rollout-logprobs"),
      "--use-rollout-logprobs and --use-tis exclude each other: with the engine's log-probs as the old policy there is nothing to correct",
    ],
    [
      "missing file",
      one("--custom-rm-path rm.ts").filter((issue) => issue.includes("rm.ts")),
      "--custom-rm-path: rm.ts does not exist; name a file that is there",
    ],
    ["wrong kind", issuesOf(base.replace("model", "data.jsonl")), "--hf-checkpoint: data.jsonl is a file, not a directory"],
    [
      "sglang",
      one("--sglang-mem-fraction-static 0.8"),
      "--sglang-mem-fraction-static is a setting of SGLang engines: give --rollout-backend sglang, or leave it out",
    ],
    [
      "megatron",
      one("--tensor-model-parallel-size 2"),
      "--tensor-model-parallel-size: it is Megatron's, which the embedded backend does not use",
    ],
    ["not built", one("--partial-rollout"), "--partial-rollout: upstream slime has it, this version does not yet"],
    ["environment", one("", { env: { SLIME_FLAG_LRR: "1" } }), "SLIME_FLAG_LRR is no flag's variable; did you mean SLIME_FLAG_LR?"],
    [
      "file",
      one("--config c.yaml", { readFile: () => "rollout-temprature: 1" }),
      "c.yaml: rollout-temprature is no flag; did you mean --rollout-temperature?",
    ],
    ["no length", issuesOf(base.replace("--num-rollout 10 ", "")), "one of --num-rollout and --num-epoch must be given"],
    [
      "no reward",
      issuesOf(base.replace("--rm-type exact_match ", "")),
      "one of --rm-type and --custom-rm-path must say how answers are scored",
    ],
    ["backend", one("--train-backend megatron"), '--train-backend: must be one of embedded, got "megatron"'],
  ])("refuses: %s", (_, issues, expected) => expect(issues).toEqual([expected]));
});

describe("files that are not there", () => {
  const missing = (words: string): SlimeError => {
    try {
      resolveConfig(input(words));
    } catch (error) {
      if (SlimeError.isAny(error)) return error;
    }
    throw new Error("it was not refused");
  };

  it("is its own class when nothing else is wrong", () => {
    expect(missing(`${base} --eval-interval 1 --eval-prompt-data held nowhere.jsonl`)).toMatchObject({
      code: "file.missing",
      message: "[file.missing] --eval-prompt-data held: nowhere.jsonl does not exist; name a file that is there",
      details: { path: "nowhere.jsonl", wanted: "--eval-prompt-data held" },
    });
  });

  it("is one issue among others when there are others", () => {
    const error = missing(`${base} --eval-interval 1 --eval-prompt-data held nowhere.jsonl --kl-loss-coef 1`);
    expect(error).toMatchObject({
      code: "config.invalid",
      details: { issues: expect.arrayContaining([expect.stringContaining("nowhere.jsonl")]) },
    });
  });

  it("hides nothing behind a --config that cannot be read: what it would have set is not complained of", () => {
    expect(missing("--config c.yaml")).toMatchObject({
      code: "file.missing",
      message: "[file.missing] --config: cannot read c.yaml: no such file: c.yaml; name a file that is there",
    });
  });
});

describe("derived values", () => {
  it("keeps the batch equation", () => {
    expect(derive(resolve(""))).toMatchObject({
      samplesPerRollout: 32,
      globalBatchSize: 32,
      stepsPerRollout: 1,
      engines: 1,
      trainerRanks: 1,
      lagMax: 0,
    });
    expect(derive(resolve("--num-steps-per-rollout 4"))).toMatchObject({ globalBatchSize: 8, stepsPerRollout: 4 });
    expect(derive(resolve("--global-batch-size 16"))).toMatchObject({ stepsPerRollout: 2 });
  });

  it("counts rollouts from epochs", () => {
    const config = resolveConfig(input(base.replace("--num-rollout 10", "--num-epoch 3"))).config;
    expect(loopLength(config, 100)).toEqual({ rollouts: 36, rolloutsPerEpoch: 12 });
    expect(loopLength(resolve("--num-epoch 3"), 100)).toEqual({ rollouts: 10, rolloutsPerEpoch: null });
  });

  it.each([
    [1, 1, 1],
    [4, 1, 4],
    [4, 2, 2],
    [1, 2, 1],
    [3, 2, 2],
  ])("buffer %i, interval %i: lag %i", (bufferSize, pushInterval, lag) => {
    expect(largestLag({ bufferSize, pushInterval })).toBe(lag);
  });
});

describe("suggestions", () => {
  it("counts edits, swaps as one", () =>
    expect([editDistance("lr", "rl", 3), editDistance("kitten", "sitting", 5), editDistance("a", "abcdef", 2)]).toEqual([1, 3, 3]));
  it("orders by nearness", () =>
    expect(
      suggestions(
        "rollout-num-gpu",
        flags.map((row) => row.name),
      )[0],
    ).toBe("rollout-num-gpus"));
});

describe("the table", () => {
  it("has one row per name, and none that upstreamOnly calls unbuilt", () => {
    const names = flags.map((row) => row.name as string);
    expect(new Set(names).size).toBe(names.length);
    expect(names.filter((name) => upstreamOnly.includes(name))).toEqual([]);
  });

  it("equals the golden file", async () => {
    const golden = new URL("../../../test/golden/run/flags.json", import.meta.url);
    await expect(`${JSON.stringify(flagListing(), null, 1)}\n`).toMatchFileSnapshot(golden.pathname);
  });
});
