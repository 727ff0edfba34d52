import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { type EngineGroup, engineModels, type RunConfig, type WorkerType } from "@slime/rl-config";
import { type ActorHandle, actor, type PlacementGroup, type PlacementRow } from "@slime/runtime";
import { type EngineProcess, type Layout, samplingSeed } from "@slime/training";
import { RolloutEngine } from "../actors/rollout-engine.js";
import type { SglangCommon } from "../actors/sglang-spec.js";
import type { EngineSpec } from "../actors/start-engine-process.js";
import type { EngineSeat } from "./engine-slot.js";
import type { FleetParts } from "./fleet.js";
import { lightweight, restarts } from "./lives.js";
import { serverSettings, sglangEnv } from "./server-settings.js";

/** Control calls of an engine at once: a push and what else the run asks meanwhile; and who waits for its news. */
const groups = { control: 16, watch: 4 };

export type RunEngine = FleetParts["engines"][number];

/** What engines need to know of the run beside its configuration. */
export interface EngineRunParts {
  readonly layout: Layout;
  readonly group: PlacementGroup;
  readonly table: readonly PlacementRow[];
  /** Of the run; each engine has a directory of its own below it. */
  readonly directory: string;
}

/** Makes the actors of the run's engines: one per engine and machine, each on the first of its bundles; external ones hold no GPU. */
export function startEngines(config: RunConfig, parts: EngineRunParts): readonly RunEngine[] {
  const { rolloutExternalEngineAddrs: external } = config;
  if (external.length > 0) return external.map((address, at) => externalEngine(config, { address, at, directory: parts.directory }));
  const serving = parts.layout.engines.filter(({ nodeRank }) => nodeRank === 0);
  return serving.map(({ engine, group: { workerType } }) => ({
    id: `engine-${engine}`,
    role: roleOf(workerType),
    seats: parts.layout.engines.filter((process) => process.engine === engine).map((process) => seatOf(config, process, parts)),
  }));
}

/** Every actor of these engines. */
export const engineActors = (engines: readonly RunEngine[]): readonly ActorHandle<RolloutEngine>[] =>
  engines.flatMap(({ seats }) => seats.map(({ actor }) => actor));

function seatOf(config: RunConfig, process: EngineProcess, { group, table, directory }: EngineRunParts): EngineSeat {
  const { engine, nodeRank, bundle, gpus } = process;
  const name = nodeRank === 0 ? `engine-${engine}` : `engine-${engine}-node-${nodeRank}`;
  const made = actor(RolloutEngine, {
    name,
    placementGroup: group,
    bundle: table[bundle]?.bundle ?? bundle,
    resources: { GPU: 1, CPU: 1 },
    concurrencyGroups: groups,
    ...restarts,
    args: [engineSpec(config, process, join(directory, `engine-${engine}`))],
  });
  return { actor: made, place: () => placeOf(group, { bundle, gpus, name }) };
}

function externalEngine(
  config: RunConfig,
  { address, at, directory }: { readonly address: string; readonly at: number; readonly directory: string },
): RunEngine {
  const id = `engine-${at}`;
  const made = actor(RolloutEngine, {
    name: id,
    resources: lightweight,
    concurrencyGroups: groups,
    // Each life waits for the server and pushes it anew; how often it is away is not ours to bound.
    maxRestarts: -1,
    args: [
      {
        kind: "external",
        url: address.startsWith("http") ? address : `http://${address}`,
        modelPath: config.hfCheckpoint,
        ...commonOf(config, { env: {} }, join(directory, id)),
      },
    ],
  });
  return { id, role: "regular", seats: [{ actor: made, place: async () => ({ address: "127.0.0.1", gpuUuids: [] }) }] };
}

function engineSpec(config: RunConfig, { engine, group }: EngineProcess, directory: string): EngineSpec {
  const fromSeed = config.fromScratch ? config.seed : null;
  if (config.rolloutBackend === "embedded")
    return { kind: "embedded", hfCheckpoint: config.hfCheckpoint, fromSeed, samplingSeed: (samplingSeed(config) ?? config.seed) + engine };
  const settings = serverSettings(config, { engine, group, modelPath: engineModels(config)[0]?.modelPath ?? null, updateWeights: true });
  return { kind: "sglang", settings, ...commonOf(config, group, directory) };
}

const commonOf = (config: RunConfig, group: Pick<EngineGroup, "env">, directory: string): SglangCommon => ({
  python: config.sglangPython,
  env: sglangEnv(config, group),
  transport: config.updateWeightTransport,
  fromSeed: config.fromScratch ? config.seed : null,
  directory,
});

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
