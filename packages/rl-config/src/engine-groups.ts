/**
 * Which engines a run has: models, and within each the server groups of `--sglang-config` (upstream's file, all of it), of
 * `--prefill-num-servers`, or the one group that `--rollout-num-gpus` alone describes. Pure; the file is read by `resolve.ts`.
 */
import { parse } from "yaml";
import { z } from "zod";
import { type PassThrough, passedYaml } from "./pass-through.js";

/** `placeholder` keeps GPUs free; `encoder` turns images into embeddings for the others. */
export const workerTypes = ["regular", "prefill", "decode", "placeholder", "encoder"] as const;
export type WorkerType = (typeof workerTypes)[number];

/** Engines alike, on neighbouring GPUs. */
export interface EngineGroup {
  readonly workerType: WorkerType;
  readonly gpus: number;
  readonly gpusPerEngine: number;
  /** Server settings that win over `--sglang-*`. */
  readonly overrides: PassThrough;
  /** Added to `--sglang-env`. */
  readonly env: Readonly<Record<string, string>>;
}

/** One model behind a router of its own. */
export interface EngineModel {
  readonly name: string;
  /** Null: `--hf-checkpoint`. */
  readonly modelPath: string | null;
  /** The trainer's weights are pushed into it. */
  readonly updateWeights: boolean;
  readonly groups: readonly EngineGroup[];
}

const text = z.string("must be text").min(1, "must not be empty");
const count = z.int("must be a whole number").min(1, "must be at least 1");
const settings = z.record(z.string(), z.unknown(), "must be a map of settings");
const groupSchema = z.strictObject({
  worker_type: z.enum(workerTypes, `must be one of ${workerTypes.join(", ")}`),
  num_gpus: count,
  num_gpus_per_engine: count.optional(),
  overrides: settings.optional(),
  env: z.record(z.string(), z.string("must be text; quote numbers")).optional(),
});
const groups = z.array(groupSchema, "must be a list of groups").min(1, "must have at least one group");
const fileSchema = z.strictObject({
  sglang: z
    .array(
      z.strictObject({
        name: text,
        model_path: text.optional(),
        update_weights: z.boolean("must be true or false").optional(),
        num_gpus_per_engine: count.optional(),
        server_groups: groups.optional(),
        engine_groups: groups.optional(),
      }),
      "must be a list of models",
    )
    .min(1, "must have at least one model"),
});

/** Reads a `--sglang-config` file. `file` is for messages; the issues are all there are. */
export function parseEngineModels(
  source: string,
  file: string,
  values: { readonly hfCheckpoint: string; readonly rolloutNumGpusPerEngine: number },
): { readonly models: readonly EngineModel[]; readonly issues: readonly string[] } {
  const refused = (issues: readonly string[]) => ({ models: [], issues: issues.map((issue) => `--sglang-config ${file}: ${issue}`) });
  let document: unknown;
  try {
    document = parse(source);
  } catch (error) {
    return refused([error instanceof Error ? (error.message.split("\n")[0] ?? "does not parse") : "does not parse"]);
  }
  const read = fileSchema.safeParse(document);
  if (!read.success) return refused(read.error.issues.map(({ path, message }) => `${path.join(".") || "the file"} ${message}`));
  const issues: string[] = [];
  const models = read.data.sglang.map((model, at): EngineModel => {
    const where = `sglang.${at} (${model.name})`;
    if (read.data.sglang.findIndex(({ name }) => name === model.name) !== at) issues.push(`${where}: another model has this name`);
    if ((model.server_groups === undefined) === (model.engine_groups === undefined))
      issues.push(`${where}: give server_groups (or its older name engine_groups), once`);
    const modelPath = model.model_path ?? null;
    return {
      name: model.name,
      modelPath,
      updateWeights: model.update_weights ?? (modelPath === null || modelPath === values.hfCheckpoint),
      groups: (model.server_groups ?? model.engine_groups ?? []).map((group, of) => {
        const gpusPerEngine = group.num_gpus_per_engine ?? model.num_gpus_per_engine ?? values.rolloutNumGpusPerEngine;
        if (group.num_gpus % gpusPerEngine !== 0 && group.worker_type !== "placeholder")
          issues.push(`${where}, group ${of}: num_gpus ${group.num_gpus} is not a multiple of num_gpus_per_engine ${gpusPerEngine}`);
        return {
          workerType: group.worker_type,
          gpus: group.num_gpus,
          gpusPerEngine,
          overrides: overridesOf(group.overrides ?? {}, `${where}, group ${of}`, issues),
          env: group.env ?? {},
        };
      }),
    };
  });
  if (!models.some(({ updateWeights }) => updateWeights))
    issues.push("no model takes the trainer's weights: give one update_weights: true");
  return issues.length > 0 ? refused(issues) : { models, issues };
}

function overridesOf(given: Readonly<Record<string, unknown>>, where: string, issues: string[]): PassThrough {
  return Object.fromEntries(
    Object.entries(given).flatMap(([written, value]) => {
      const name = written.replaceAll("-", "_");
      const passed = passedYaml(value);
      if (passed === undefined) issues.push(`${where}, overrides.${written} is no setting: give text, a number, true, false or a list`);
      return passed === undefined ? [] : [[name, passed] as const];
    }),
  );
}

/** What `engineModels` needs of a configuration. */
export interface EngineFlags {
  readonly rolloutNumGpus: number | null;
  readonly rolloutNumGpusPerEngine: number;
  readonly prefillNumServers: number | null;
  readonly rolloutExternalEngineAddrs: readonly string[];
  readonly sglangModels: readonly EngineModel[] | null;
}

/** The run's models, whatever described them; none with external engines. */
export function engineModels(config: EngineFlags): readonly EngineModel[] {
  if (config.rolloutExternalEngineAddrs.length > 0) return [];
  if (config.sglangModels !== null) return config.sglangModels;
  const gpusPerEngine = config.rolloutNumGpusPerEngine;
  const gpus = config.rolloutNumGpus ?? gpusPerEngine;
  const plain = { gpusPerEngine, overrides: {}, env: {} };
  const prefill = (config.prefillNumServers ?? 0) * gpusPerEngine;
  const split: readonly EngineGroup[] = [
    { ...plain, workerType: "prefill", gpus: prefill },
    { ...plain, workerType: "decode", gpus: gpus - prefill },
  ];
  const groups: readonly EngineGroup[] = prefill > 0 ? split : [{ ...plain, workerType: "regular", gpus }];
  return [{ name: "actor", modelPath: null, updateWeights: true, groups }];
}

/** GPUs of all engines together, those kept free included. */
export function engineGpus(models: readonly EngineModel[]): number {
  return models.flatMap(({ groups }) => groups).reduce((sum, { gpus }) => sum + gpus, 0);
}

/** Engines that answer whole requests or the second half of them: what bounds the requests in flight. */
export function answeringEngines(models: readonly EngineModel[]): number {
  return models
    .flatMap(({ groups }) => groups)
    .filter(({ workerType }) => workerType === "regular" || workerType === "decode")
    .reduce((sum, { gpus, gpusPerEngine }) => sum + Math.floor(gpus / gpusPerEngine), 0);
}
