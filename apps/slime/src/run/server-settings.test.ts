import type { EngineGroup } from "@slime/rl-config";
import { describe, expect, it } from "vitest";
import { serverSettings, sglangEnv } from "./server-settings.js";

const group: EngineGroup = { workerType: "regular", gpus: 4, gpusPerEngine: 2, overrides: { mem_fraction_static: 0.5 }, env: { B: "2" } };
const config = {
  mode: "sync",
  updateWeightsPauseMode: null,
  hfCheckpoint: "/model",
  numGpusPerNode: 8,
  sglangArgs: {},
  sglangEnv: { A: "1", B: "1" },
  sglangPython: "python3",
  rolloutSeed: 42,
  sglangEnableDeterministicInference: false,
} as const;
const facts = { engine: 3, group, modelPath: null, updateWeights: true };

describe("settings of an SGLang engine", () => {
  it("follow from the run and its group", () =>
    expect(serverSettings(config, facts)).toEqual({
      python: "python3",
      modelPath: "/model",
      env: { A: "1", B: "2" },
      passThrough: { log_level_http: "warning" },
      overrides: { mem_fraction_static: 0.5 },
      run: { seed: 42, gpusPerNode: 8, fp16: false, trustRemoteCode: false, returnRoutedExperts: false },
      engine: { role: "regular", rank: 3, gpus: 2, offload: false, frozen: false, encoderUrls: [] },
    }));

  it.each([
    ["what follows gives way to the user's", { sglangArgs: { log_level_http: "info" } }, { log_level_http: "info" }],
    ["no prefixes are kept where pushes cannot flush", { mode: "async" }, { log_level_http: "warning", disable_radix_cache: true }],
    [
      "unless the user wants them",
      { mode: "async", sglangArgs: { disable_radix_cache: false } },
      { log_level_http: "warning", disable_radix_cache: false },
    ],
    [
      "seeds decide where asked",
      { sglangEnableDeterministicInference: true },
      { log_level_http: "warning", enable_deterministic_inference: true },
    ],
  ] as const)("%s", (_, change, passThrough) => expect(serverSettings({ ...config, ...change }, facts).passThrough).toEqual(passThrough));

  it("a model of its own is served frozen", () =>
    expect(serverSettings(config, { ...facts, modelPath: "/judge", updateWeights: false })).toMatchObject({
      modelPath: "/judge",
      engine: { frozen: true },
    }));

  it("environment that is no text is left out; the flag's check names it", () =>
    expect(sglangEnv({ sglangEnv: { A: 1 } }, { env: {} })).toEqual({}));
});
