import { SlimeError } from "@slime/core";
import type { RunConfig, WorkerType } from "@slime/rl-config";
import { type ActorHandle, actor, type PlacementGroup, type PlacementRow } from "@slime/runtime";
import { type EngineProcess, type Layout, samplingSeed } from "@slime/training";
import { RolloutEngine } from "../actors/rollout-engine.js";
import type { EngineSpec } from "../actors/start-engine-process.js";
import type { EngineSeat } from "./engine-slot.js";
import type { FleetParts } from "./fleet.js";
import { restarts } from "./lives.js";

/** Control calls of an engine at once: a push and what else the run asks meanwhile; and who waits for its news. */
const groups = { control: 16, watch: 4 };

export type RunEngine = FleetParts["engines"][number];

/** Makes the actors of the run's engines, one per engine and machine, each on the first of its bundles. */
export function startEngines(
  config: RunConfig,
  layout: Layout,
  group: PlacementGroup,
  table: readonly PlacementRow[],
): readonly RunEngine[] {
  const serving = layout.engines.filter(({ nodeRank }) => nodeRank === 0);
  return serving.map(({ engine, group: { workerType } }) => ({
    id: `engine-${engine}`,
    role: roleOf(workerType),
    seats: layout.engines
      .filter((process) => process.engine === engine)
      .map((process): EngineSeat => {
        const { nodeRank, bundle, gpus } = process;
        const name = nodeRank === 0 ? `engine-${engine}` : `engine-${engine}-node-${nodeRank}`;
        const made: ActorHandle<RolloutEngine> = actor(RolloutEngine, {
          name,
          placementGroup: group,
          bundle: table[bundle]?.bundle ?? bundle,
          resources: { GPU: 1, CPU: 1 },
          concurrencyGroups: groups,
          ...restarts,
          args: [engineSpec(config, process)],
        });
        return { actor: made, place: () => placeOf(group, { bundle, gpus, name }) };
      }),
  }));
}

/** Every actor of these engines. */
export const engineActors = (engines: readonly RunEngine[]): readonly ActorHandle<RolloutEngine>[] =>
  engines.flatMap(({ seats }) => seats.map(({ actor }) => actor));

function engineSpec(config: RunConfig, { engine }: EngineProcess): EngineSpec {
  return {
    kind: "embedded",
    hfCheckpoint: config.hfCheckpoint,
    fromSeed: config.fromScratch ? config.seed : null,
    samplingSeed: (samplingSeed(config) ?? config.seed) + engine,
  };
}

function roleOf(type: WorkerType): RunEngine["role"] {
  if (type === "regular" || type === "prefill" || type === "decode") return type;
  const why = `engines of worker_type ${type} are not built: leave the group out of --sglang-config`;
  throw new SlimeError("unsupported", why, { what: `worker_type ${type}`, why });
}

/** Where the group's bundles lie now. A process computes on several bundles' GPUs, so they must be on one machine. */
async function placeOf(
  group: PlacementGroup,
  { bundle, gpus, name }: { readonly bundle: number; readonly gpus: number; readonly name: string },
): Promise<{ readonly address: string; readonly gpuUuids: readonly string[] }> {
  const rows = (await group.ready()).slice(bundle, bundle + gpus);
  const nodes = [...new Set(rows.map(({ nodeId }) => nodeId))];
  if (nodes.length > 1) {
    const reason = `${name} needs ${gpus} GPUs of one machine, its bundles ${bundle} to ${bundle + gpus - 1} lie on ${nodes.join(" and ")}: free GPUs so that they fit, or set --num-gpus-per-node to what every machine gives`;
    throw new SlimeError("placement.infeasible", reason, { wanted: `${gpus} GPUs of one machine`, reasons: [reason] });
  }
  return { address: rows[0]?.address ?? "127.0.0.1", gpuUuids: rows.flatMap((row) => row.gpus.map(({ uuid }) => uuid)) };
}
