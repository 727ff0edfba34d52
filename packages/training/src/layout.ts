import { SlimeError } from "@slime/core";
import type { Derived, RunConfig } from "@slime/rl-config";

/** Which GPUs a run takes, and who sits where. Colocation is not built. */
export type LayoutMode = "normal" | "debug_train_only" | "debug_rollout_only" | "external" | "external_rollout_only";

export interface Reservation {
  /** GPUs the placement group holds; 0: no group. */
  readonly reserve: number;
  /** Index of the first rollout bundle. */
  readonly rolloutOffset: number;
}

/** Upstream's table: `trainerGpus` = nodes × GPUs per node, `rolloutGpus` = those of all engines. */
export function reservation(mode: LayoutMode, sizes: { readonly trainerGpus: number; readonly rolloutGpus: number }): Reservation {
  switch (mode) {
    case "normal":
      return { reserve: sizes.trainerGpus + sizes.rolloutGpus, rolloutOffset: sizes.trainerGpus };
    case "debug_train_only":
    case "external_rollout_only":
      return { reserve: sizes.trainerGpus, rolloutOffset: 0 };
    case "external":
      return { reserve: sizes.trainerGpus, rolloutOffset: sizes.trainerGpus };
    case "debug_rollout_only":
      return { reserve: sizes.rolloutGpus, rolloutOffset: 0 };
  }
}

/** Where one process of an engine sits: bundle index, and its place among the nodes of a multi-node engine. */
export interface EngineProcess {
  readonly engine: number;
  readonly nodeRank: number;
  readonly bundle: number;
  readonly gpus: number;
}

export interface Layout {
  /** One `{ GPU: 1, CPU: 1 }` each, in the order the placement group answers (node address, then GPU index). */
  readonly bundles: number;
  /** `trainerBundles[rank]`. */
  readonly trainerBundles: readonly number[];
  readonly engines: readonly EngineProcess[];
  /** Bundle of a `RefModel` of its own (`--ref-num-gpus 1`); null: the reference lives in the trainer's ranks, or there is none. */
  readonly referenceBundle: number | null;
}

/**
 * The map rank ↔ bundle ↔ engine. The group's bundles come back sorted (architecture: node address numerically, then GPU index), so the
 * map is the same on every start with the same machines. Process i of the engines sits on bundle `offset + i × min(gpusPerEngine,
 * gpusPerNode)`; an engine of more than a node's GPUs has one process a node.
 */
export function layoutOf(
  mode: LayoutMode,
  sizes: { readonly trainerGpus: number; readonly rolloutGpus: number; readonly gpusPerEngine: number; readonly gpusPerNode: number },
): Layout {
  const { reserve, rolloutOffset } = reservation(mode, sizes);
  const perProcess = Math.min(sizes.gpusPerEngine, sizes.gpusPerNode);
  const nodesPerEngine = Math.max(1, Math.floor(sizes.gpusPerEngine / sizes.gpusPerNode));
  const processes = mode === "normal" || mode === "debug_rollout_only" ? Math.floor(sizes.rolloutGpus / perProcess) : 0;
  const engines = Array.from({ length: processes }, (_, i): EngineProcess => {
    const bundle = rolloutOffset + i * perProcess;
    if (bundle + perProcess > reserve) {
      const reason = `engine process ${i} needs bundles ${bundle} to ${bundle + perProcess - 1}, the group has ${reserve}`;
      throw new SlimeError("placement.infeasible", reason, {
        wanted: `${processes} engine processes of ${perProcess} GPUs`,
        reasons: [reason],
      });
    }
    return { engine: Math.floor(i / nodesPerEngine), nodeRank: i % nodesPerEngine, bundle, gpus: perProcess };
  });
  const trains = mode !== "debug_rollout_only" && mode !== "external_rollout_only";
  return {
    bundles: reserve,
    trainerBundles: trains ? Array.from({ length: sizes.trainerGpus }, (_, rank) => rank) : [],
    engines,
    referenceBundle: null,
  };
}

/** The layout of a run's configuration. */
export function runLayout(config: RunConfig, derived: Derived): Layout {
  const layout = layoutOf("normal", {
    trainerGpus: derived.trainerRanks,
    rolloutGpus: derived.rolloutGpus,
    gpusPerEngine: config.rolloutNumGpusPerEngine,
    gpusPerNode: config.numGpusPerNode,
  });
  if (config.refNumGpus === 0 || !derived.needsReference) return layout;
  return { ...layout, bundles: layout.bundles + 1, referenceBundle: layout.bundles };
}
