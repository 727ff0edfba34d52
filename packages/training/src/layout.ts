import { type Derived, type EngineGroup, type EngineModel, engineGpus, engineModels, type RunConfig } from "@slime/rl-config";

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

/** Where one process of an engine sits, and what it serves. */
export interface EngineProcess {
  /** Counts all engines of the run, in the order of their groups. */
  readonly engine: number;
  readonly nodeRank: number;
  /** Processes (nodes) of this engine; rank 0 has the HTTP port. */
  readonly nodes: number;
  /** Its first bundle. */
  readonly bundle: number;
  readonly gpus: number;
  /** Name of its model. */
  readonly model: string;
  readonly group: EngineGroup;
}

export interface Layout {
  /** One `{ GPU: 1, CPU: 1 }` each, in the order the placement group answers (node address, then GPU index). */
  readonly bundles: number;
  /** `trainerBundles[rank]`. */
  readonly trainerBundles: readonly number[];
  /** Placeholder groups have none; their bundles stay empty. */
  readonly engines: readonly EngineProcess[];
  /** Bundle of a `RefModel` of its own (`--ref-num-gpus 1`); null: the reference lives in the trainer's ranks, or there is none. */
  readonly referenceBundle: number | null;
}

/**
 * The map rank ↔ bundle ↔ engine. The group's bundles come back sorted (architecture: node address numerically, then GPU index), so the
 * map is the same on every start with the same machines. Groups lie one after another; process i of a group sits on bundle
 * `offset + i × min(gpusPerEngine, gpusPerNode)`; an engine of more than a node's GPUs has one process a node.
 */
export function layoutOf(
  mode: LayoutMode,
  sizes: { readonly trainerGpus: number; readonly gpusPerNode: number },
  models: readonly EngineModel[],
): Layout {
  const { reserve, rolloutOffset } = reservation(mode, { trainerGpus: sizes.trainerGpus, rolloutGpus: engineGpus(models) });
  const trains = mode !== "debug_rollout_only" && mode !== "external_rollout_only";
  return {
    bundles: reserve,
    trainerBundles: trains ? Array.from({ length: sizes.trainerGpus }, (_, rank) => rank) : [],
    engines: mode === "normal" || mode === "debug_rollout_only" ? engineProcesses(models, rolloutOffset, sizes.gpusPerNode) : [],
    referenceBundle: null,
  };
}

function engineProcesses(models: readonly EngineModel[], from: number, gpusPerNode: number): readonly EngineProcess[] {
  const out: EngineProcess[] = [];
  let bundle = from;
  let engine = 0;
  for (const { name: model, groups } of models) {
    for (const group of groups) {
      const gpus = Math.min(group.gpusPerEngine, gpusPerNode);
      const nodes = Math.max(1, Math.floor(group.gpusPerEngine / gpusPerNode));
      const engines = group.workerType === "placeholder" ? 0 : Math.floor(group.gpus / group.gpusPerEngine);
      for (let i = 0; i < engines * nodes; i++)
        out.push({ engine: engine + Math.floor(i / nodes), nodeRank: i % nodes, nodes, bundle: bundle + i * gpus, gpus, model, group });
      engine += engines;
      bundle += group.gpus;
    }
  }
  return out;
}

/** The layout of a run's configuration. */
export function runLayout(config: RunConfig, derived: Derived): Layout {
  const mode = config.rolloutExternalEngineAddrs.length > 0 ? "external" : "normal";
  const layout = layoutOf(mode, { trainerGpus: derived.trainerRanks, gpusPerNode: config.numGpusPerNode }, engineModels(config));
  if (config.refNumGpus === 0 || !derived.needsReference) return layout;
  return { ...layout, bundles: layout.bundles + 1, referenceBundle: layout.bundles };
}
