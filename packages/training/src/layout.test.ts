import type { EngineGroup, EngineModel } from "@slime/rl-config";
import { describe, expect, it } from "vitest";
import { type LayoutMode, layoutOf, reservation } from "./layout.js";

const group = (gpus: number, gpusPerEngine: number, workerType: EngineGroup["workerType"] = "regular"): EngineGroup => ({
  workerType,
  gpus,
  gpusPerEngine,
  overrides: {},
  env: {},
});
const model = (name: string, ...groups: readonly EngineGroup[]): EngineModel => ({ name, modelPath: null, updateWeights: true, groups });

describe("the layout table", () => {
  // Upstream's own test values, A = 16 trainer GPUs; colocation is not built.
  it.each<[LayoutMode, number, number, number]>([
    ["debug_train_only", 32, 16, 0],
    ["external", 32, 16, 16],
    ["external_rollout_only", 32, 16, 0],
    ["debug_rollout_only", 32, 32, 0],
    ["normal", 32, 48, 16],
    ["normal", 0, 16, 16],
  ])("%s with %i rollout GPUs reserves %i, engines from %i", (mode, rolloutGpus, reserve, rolloutOffset) => {
    expect(reservation(mode, { trainerGpus: 16, rolloutGpus })).toEqual({ reserve, rolloutOffset });
  });

  it("puts ranks first, then engines", () => {
    expect(layoutOf("normal", { trainerGpus: 2, gpusPerNode: 8 }, [model("actor", group(4, 2))])).toMatchObject({
      bundles: 6,
      trainerBundles: [0, 1],
      engines: [
        { engine: 0, nodeRank: 0, bundle: 2, gpus: 2 },
        { engine: 1, nodeRank: 0, bundle: 4, gpus: 2 },
      ],
    });
  });

  it("spreads an engine larger than a node over whole nodes", () => {
    const { engines } = layoutOf("debug_rollout_only", { trainerGpus: 0, gpusPerNode: 8 }, [model("actor", group(32, 16))]);
    expect(engines.map(({ engine, nodeRank, bundle }) => [engine, nodeRank, bundle])).toEqual([
      [0, 0, 0],
      [0, 1, 8],
      [1, 0, 16],
      [1, 1, 24],
    ]);
  });

  it("lays groups one after another, of several models, and keeps a placeholder's GPUs free", () => {
    const models = [model("actor", group(2, 1, "prefill"), group(4, 2, "decode"), group(3, 1, "placeholder")), model("judge", group(2, 2))];
    const { bundles, engines } = layoutOf("normal", { trainerGpus: 1, gpusPerNode: 8 }, models);
    expect(bundles).toBe(12);
    expect(engines.map(({ engine, bundle, gpus, model: name, group: { workerType } }) => [engine, bundle, gpus, name, workerType])).toEqual(
      [
        [0, 1, 1, "actor", "prefill"],
        [1, 2, 1, "actor", "prefill"],
        [2, 3, 2, "actor", "decode"],
        [3, 5, 2, "actor", "decode"],
        [4, 10, 2, "judge", "regular"],
      ],
    );
  });
});
