import { SlimeError } from "@slime/core";
import { describe, expect, it } from "vitest";
import { derive } from "./derived.js";
import { engineModels } from "./engine-groups.js";
import { resolveConfig } from "./resolve.js";

const base =
  "--hf-checkpoint model --prompt-data data.jsonl --rollout-batch-size 8 --n-samples-per-prompt 4 --rollout-max-response-len 16 --num-rollout 10 --rm-type exact_match --actor-num-gpus-per-node 1";
const kinds: Readonly<Record<string, "file" | "directory">> = { model: "directory", "data.jsonl": "file", "engines.yaml": "file" };

function read(words: string, files: Readonly<Record<string, string>> = {}) {
  return resolveConfig({
    mode: "sync",
    argv: `${base} ${words}`.split(" ").filter((word) => word !== ""),
    env: {},
    readFile: (path) => files[path] ?? "",
    paths: { kind: (path) => kinds[path] ?? "missing" },
  }).config;
}

function issues(words: string, files: Readonly<Record<string, string>> = {}): readonly string[] {
  try {
    read(words, files);
  } catch (error) {
    if (SlimeError.is(error, "config.invalid")) return error.details.issues;
    throw error;
  }
  return [];
}

const sglang = "--rollout-backend sglang";

describe("settings that are handed on", () => {
  it("come from command line, environment and file, as what they look like", () => {
    const config = resolveConfig({
      mode: "sync",
      argv: `${base} ${sglang} --config c.yaml --sglang-mem-fraction-static 0.8 --sglang_enable_metrics --sglang-cuda-graph-bs 1 2 4 --sglang-served-model-name=m`.split(
        " ",
      ),
      env: { SLIME_FLAG_SGLANG_LOG_LEVEL: "warning" },
      readFile: () => 'sglang-json-model-override-args: {"a": 1}\nsglang-mem-fraction-static: 0.5\n',
      paths: { kind: (path) => kinds[path] ?? "missing" },
    }).config;
    expect(config.sglangArgs).toEqual({
      json_model_override_args: '{"a":1}',
      mem_fraction_static: 0.8,
      log_level: "warning",
      enable_metrics: true,
      cuda_graph_bs: [1, 2, 4],
      served_model_name: "m",
    });
    expect(config.routerArgs).toEqual({});
  });

  it.each([
    [
      "of a router that is not there",
      "--router-retry-max-retries 3",
      "--router-retry-max-retries is a setting of sglang_router: give --router-backend sglang_router, or leave it out",
    ],
    [
      "misspelt flags of our own",
      "--router-polcy random",
      "--router-polcy is a setting of sglang_router: give --router-backend sglang_router, or leave it out (or did you mean --router-policy?)",
    ],
    [
      "a policy it lacks",
      "--router-backend sglang_router --router-policy least_in_flight",
      "--router-policy least_in_flight is not one of sglang_router's; its nearest is power_of_two",
    ],
    ["a tolerance of nothing", "--update-weight-canary-tolerance 0", "--update-weight-canary-tolerance: must be greater than 0, got 0"],
    [
      "thresholds nobody reads",
      "--router-balance-abs-threshold 3",
      "--router-balance-abs-threshold is read with --router-policy cache_aware only",
    ],
    ["environment that is no text", `${sglang} --sglang-env {"A":1}`, "--sglang-env: A must be text, got 1"],
    [
      "engines without SGLang",
      "--prefill-num-servers 1",
      "--prefill-num-servers is a setting of SGLang engines: give --rollout-backend sglang, or leave it out",
    ],
    [
      "all engines prefilling",
      `${sglang} --rollout-num-gpus 2 --prefill-num-servers 2`,
      "--prefill-num-servers 2 × --rollout-num-gpus-per-engine 1 leaves none of --rollout-num-gpus 2 to decode",
    ],
    ["no address", `${sglang} --rollout-external-engine-addrs nowhere`, '--rollout-external-engine-addrs: "nowhere" is not HOST:PORT'],
    [
      "a directory nobody writes to",
      `${sglang} --update-weight-disk-dir d`,
      "--update-weight-disk-dir has no effect without --update-weight-transport disk",
    ],
  ])("refuses %s", (_, words, expected) => expect(issues(words)).toEqual([expected]));
});

const file = `
sglang:
  - name: actor
    num_gpus_per_engine: 2
    server_groups:
      - {worker_type: prefill, num_gpus: 2, overrides: {mem-fraction-static: 0.8, cuda_graph_bs: [1, 2]}}
      - {worker_type: decode, num_gpus: 4, env: {NCCL_DEBUG: INFO}}
      - {worker_type: placeholder, num_gpus: 1}
  - name: judge
    model_path: /models/judge
    engine_groups: [{worker_type: regular, num_gpus: 1, num_gpus_per_engine: 1}]
`;

describe("engine models", () => {
  it("are one group of equal engines by default, prefill and decode when asked", () => {
    expect(engineModels(read(`${sglang} --rollout-num-gpus 4 --rollout-num-gpus-per-engine 2`))).toEqual([
      {
        name: "actor",
        modelPath: null,
        updateWeights: true,
        groups: [{ workerType: "regular", gpus: 4, gpusPerEngine: 2, overrides: {}, env: {} }],
      },
    ]);
    const split = read(`${sglang} --rollout-num-gpus 8 --rollout-num-gpus-per-engine 2 --prefill-num-servers 1`);
    expect(engineModels(split)[0]?.groups.map(({ workerType, gpus }) => [workerType, gpus])).toEqual([
      ["prefill", 2],
      ["decode", 6],
    ]);
    expect(derive(split)).toMatchObject({ rolloutGpus: 8, engines: 3 });
  });

  it("come from --sglang-config, all of upstream's fields", () => {
    const config = read(`${sglang} --sglang-config engines.yaml`, { "engines.yaml": file });
    expect(config.sglangModels).toMatchObject([
      {
        name: "actor",
        updateWeights: true,
        groups: [
          { workerType: "prefill", gpus: 2, gpusPerEngine: 2, overrides: { mem_fraction_static: 0.8, cuda_graph_bs: [1, 2] } },
          { workerType: "decode", gpus: 4, gpusPerEngine: 2, env: { NCCL_DEBUG: "INFO" } },
          { workerType: "placeholder", gpus: 1 },
        ],
      },
      { name: "judge", modelPath: "/models/judge", updateWeights: false, groups: [{ workerType: "regular", gpus: 1 }] },
    ]);
    expect(derive(config)).toMatchObject({ rolloutGpus: 8, engines: 3 });
  });

  it("with external engines are none", () => {
    const config = read(`${sglang} --rollout-external-engine-addrs 127.0.0.1:30000 127.0.0.1:30001`);
    expect([engineModels(config), derive(config).rolloutGpus, derive(config).engines]).toEqual([[], 0, 2]);
  });

  it("names everything that is wrong with the file at once", () => {
    const bad = `
sglang:
  - {name: a, server_groups: [{worker_type: prefill, num_gpus: 3, num_gpus_per_engine: 2, overrides: {tp_size: 2}}]}
  - {name: a, update_weights: false, model_path: m}
`;
    expect(issues(`${sglang} --sglang-config engines.yaml`, { "engines.yaml": bad })).toEqual([
      "--sglang-config engines.yaml: sglang.0 (a), group 0: num_gpus 3 is not a multiple of num_gpus_per_engine 2",
      "--sglang-config engines.yaml: sglang.1 (a): another model has this name",
      "--sglang-config engines.yaml: sglang.1 (a): give server_groups (or its older name engine_groups), once",
    ]);
    expect(issues(`${sglang} --sglang-config engines.yaml`, { "engines.yaml": "sglang: [{name: a, groups: []}]" })).toEqual([
      '--sglang-config engines.yaml: sglang.0 Unrecognized key: "groups"',
    ]);
    expect(issues(`${sglang} --sglang-config engines.yaml --rollout-num-gpus 4`, { "engines.yaml": file })).toEqual([
      "--sglang-config gives its groups 8 GPUs, --rollout-num-gpus says 4: make them equal, or leave the flag out",
    ]);
    expect(issues(`${sglang} --sglang-config missing.yaml --prefill-num-servers 1`)).toContain(
      "--sglang-config and --prefill-num-servers exclude each other: each says which engines there are",
    );
  });
});
