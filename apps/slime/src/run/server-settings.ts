import { SlimeError } from "@slime/core";
import { type EngineGroup, type RunConfig, suggestions } from "@slime/rl-config";
import { type ServerArgs, type ServerRole, serverArgTable, serverSpec } from "@slime/sglang";
import { type Layout, pauseMode } from "@slime/training";
import type { ServerSettings } from "../actors/sglang-spec.js";

/** What decides an engine's server beside the configuration. */
export interface EngineFacts {
  /** Counts all engines of the run. */
  readonly engine: number;
  readonly group: EngineGroup;
  /** Null: `--hf-checkpoint`. */
  readonly modelPath: string | null;
  readonly updateWeights: boolean;
}

type Flags = Pick<
  RunConfig,
  | "mode"
  | "updateWeightsPauseMode"
  | "hfCheckpoint"
  | "numGpusPerNode"
  | "rolloutSeed"
  | "sglangArgs"
  | "sglangEnableDeterministicInference"
  | "sglangEnv"
  | "sglangPython"
>;

/** A whole engine's server, except where it runs. Settings that follow from the run give way to the user's. */
export function serverSettings(config: Flags, { engine, group, modelPath, updateWeights }: EngineFacts): ServerSettings {
  return {
    python: config.sglangPython,
    modelPath: modelPath ?? config.hfCheckpoint,
    env: sglangEnv(config, group),
    passThrough: { ...fromRun(config), ...config.sglangArgs },
    overrides: group.overrides,
    run: { seed: config.rolloutSeed, gpusPerNode: config.numGpusPerNode, fp16: false, trustRemoteCode: false, returnRoutedExperts: false },
    engine: { role: roleOf(group), rank: engine, gpus: group.gpusPerEngine, offload: false, frozen: !updateWeights, encoderUrls: [] },
  };
}

/** Environment of a group's processes: the run's, then the group's own. */
export function sglangEnv(config: Pick<RunConfig, "sglangEnv">, group: Pick<EngineGroup, "env">): Readonly<Record<string, string>> {
  const env = Object.entries(config.sglangEnv).filter((entry): entry is [string, string] => typeof entry[1] === "string");
  return { ...Object.fromEntries(env), ...group.env };
}

/**
 * Holds every engine's settings against the SGLang that is installed, before any GPU is taken.
 * @throws `config.invalid` with all issues at once; `process.start` where `--sglang-python` is none.
 */
export async function checkServerSettings(config: RunConfig, layout: Layout): Promise<void> {
  const table = await serverArgTable(config.sglangPython, { env: { ...process.env, ...sglangEnv(config, { env: {} }) } });
  if (table === null) {
    const issue = `${config.sglangPython} has no sglang: install it there, or point --sglang-python at the Python that has it`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  const issues = new Set<string>();
  for (const { engine, nodeRank, nodes, group } of layout.engines) {
    if (nodeRank > 0) continue;
    try {
      serverSpec(
        {
          ...serverSettings(config, { engine, group, modelPath: null, updateWeights: true }),
          node: { rank: 0, count: nodes, gpuUuids: [], host: "127.0.0.1" },
          ports: { http: 1, nccl: 2, bootstrap: 3, distInit: null },
        },
        { table, suggest: suggestions },
      );
    } catch (error) {
      if (!SlimeError.is(error, "config.invalid")) throw error;
      for (const issue of error.details.issues) issues.add(issue);
    }
  }
  if (issues.size > 0) throw new SlimeError("config.invalid", [...issues].join("; "), { issues: [...issues] });
}

function fromRun(config: Flags): ServerArgs {
  return {
    // One line per request would fill disks.
    log_level_http: "warning",
    ...(config.sglangEnableDeterministicInference ? { enable_deterministic_inference: true } : {}),
    // A push that does not abort cannot flush: prompts seen before would be answered from a cache that old weights filled.
    ...(pauseMode(config) === "abort" ? {} : { disable_radix_cache: true }),
  };
}

function roleOf({ workerType }: EngineGroup): ServerRole {
  if (workerType !== "placeholder") return workerType;
  throw new SlimeError("unsupported", "a placeholder keeps GPUs free and has no engine", { what: "placeholder", why: "it has no engine" });
}
