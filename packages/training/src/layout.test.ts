import { describe, expect, it } from "vitest";
import { type LayoutMode, layoutOf, reservation } from "./layout.js";

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
    expect(layoutOf("normal", { trainerGpus: 2, rolloutGpus: 4, gpusPerEngine: 2, gpusPerNode: 8 })).toMatchObject({
      bundles: 6,
      trainerBundles: [0, 1],
      engines: [
        { engine: 0, nodeRank: 0, bundle: 2, gpus: 2 },
        { engine: 1, nodeRank: 0, bundle: 4, gpus: 2 },
      ],
    });
  });

  it("spreads an engine larger than a node over whole nodes", () => {
    const { engines } = layoutOf("debug_rollout_only", { trainerGpus: 0, rolloutGpus: 32, gpusPerEngine: 16, gpusPerNode: 8 });
    expect(engines.map(({ engine, nodeRank, bundle }) => [engine, nodeRank, bundle])).toEqual([
      [0, 0, 0],
      [0, 1, 8],
      [1, 0, 16],
      [1, 1, 24],
    ]);
  });
});
