import { readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { invariant, SlimeError } from "@slime/core";
import { copyFiles, readJson, writeDirectoryAtomic, writeFileAtomic } from "./files.js";
import { parameterLayout } from "./layout.js";
import { type ModelConfig, modelConfigJson, parseModelConfig, tokenIdsOf } from "./model-config.js";
import { type NamedTensor, safetensorsParts } from "./safetensors.js";
import { SafetensorsFile } from "./safetensors-file.js";

const generationConfig = "generation_config.json";

/** What goes with a model unchanged: tokenizer and templates, under the names that Hugging Face gives them. */
const companions =
  /^(tokenizer.*\.json|vocab\.(json|txt)|merges\.txt|special_tokens_map\.json|added_tokens\.json|generation_config\.json|chat_template\.(jinja|json))$/;

/** Reads `config.json` of a Hugging Face directory, and the ids that end an answer from `generation_config.json` where there is one: chat models name more there. */
export async function readModelConfig(directory: string): Promise<ModelConfig> {
  const path = join(directory, "config.json");
  const config = parseModelConfig(await readJson(path, "the model's config.json"), path);
  if (!(await readdirOrNone(directory)).includes(generationConfig)) return config;
  const generation = (await readJson(join(directory, generationConfig), "the model's generation defaults")) as {
    readonly eos_token_id?: unknown;
  } | null;
  return { ...config, eosTokenIds: [...new Set([...config.eosTokenIds, ...tokenIdsOf(generation?.eos_token_id)])] };
}

/**
 * Reads the weights of a Hugging Face directory (model.safetensors, or the files of model.safetensors.index.json) into the layout's order.
 * Every shape is checked by the files' headers before the first number is read; a file is never held whole.
 * @param into where they go; a new array unless given. @throws `checkpoint.invalid` naming every tensor that is missing, unknown or of another shape; `file.missing`.
 */
export async function readModelWeights(
  directory: string,
  config: ModelConfig,
  into = new Float32Array(parameterLayout(config).count),
): Promise<Float32Array> {
  const { tensors, count } = parameterLayout(config);
  invariant(into.length === count, `L1: room for ${into.length} values, ${count} parameters`);
  const files: SafetensorsFile[] = [];
  try {
    for (const { path, wanted } of await weightFiles(directory)) files.push(await SafetensorsFile.open(path, wanted));
    const found = new Map(files.flatMap((file) => [...file.tensors.values()].map((entry) => [entry.name, { file, entry }] as const)));
    const problems: string[] = [];
    for (const slot of tensors) {
      const shape = found.get(slot.name)?.entry.shape;
      if (shape === undefined) problems.push(`${slot.name} is missing`);
      else if (shape.join() !== slot.shape.join())
        problems.push(`${slot.name} has shape [${shape.join(", ")}], config.json wants [${slot.shape.join(", ")}]`);
    }
    const known = new Set(tensors.map((slot) => slot.name));
    for (const name of found.keys())
      if (!known.has(name) && !isDerived(name, config)) problems.push(`${name} is not part of this architecture`);
    if (problems.length > 0) throw invalid(directory, problems.join("; "));
    for (const { name, offset, count } of tensors) {
      const place = found.get(name);
      if (place !== undefined) await place.file.read(place.entry, into.subarray(offset, offset + count));
    }
    return into;
  } finally {
    for (const file of files) await file[Symbol.asyncDispose]();
  }
}

/** A tied head may be written out, it is the embedding again; old Llama files hold the rotation's frequencies, which config.json gives. */
function isDerived(name: string, config: ModelConfig): boolean {
  return (config.tiedHead && name === "lm_head.weight") || name.endsWith(".self_attn.rotary_emb.inv_freq");
}

async function weightFiles(directory: string): Promise<readonly { readonly path: string; readonly wanted: string }[]> {
  const single = join(directory, "model.safetensors");
  if ((await readdirOrNone(directory)).includes("model.safetensors")) return [{ path: single, wanted: "the model's weights" }];
  const index = join(directory, "model.safetensors.index.json");
  const map = (await readJson(
    index,
    "the model's weights (model.safetensors or its index); a directory without weights can only start a run from scratch",
  )) as { readonly weight_map?: Readonly<Record<string, string>> } | null;
  return [...new Set(Object.values(map?.weight_map ?? {}))].map((file) => {
    const path = join(directory, file);
    if (dirname(path) !== join(directory)) throw invalid(index, `${file} lies outside of the model's directory`);
    return { path, wanted: "a shard of the model's weights" };
  });
}

async function readdirOrNone(directory: string): Promise<readonly string[]> {
  return await readdir(directory).catch(() => []);
}

function invalid(path: string, reason: string): SlimeError {
  return new SlimeError("checkpoint.invalid", `${path}: ${reason}`, { path, reason });
}

/** Views of a parameter run (weights, gradients or moments), one per tensor. */
export function tensorsOf(config: ModelConfig, values: Float32Array): NamedTensor[] {
  return parameterLayout(config).tensors.map(({ name, shape, offset, count }) => ({
    name,
    shape,
    data: values.subarray(offset, offset + count),
  }));
}

/**
 * Writes a Hugging Face directory: config.json, model.safetensors, and the tokenizer's files of `companionsFrom` unchanged. All or nothing.
 * @param companionsFrom the directory the model came from, or null for none.
 */
export async function writeHfCheckpoint(
  directory: string,
  config: ModelConfig,
  parameters: Float32Array,
  companionsFrom: string | null,
): Promise<void> {
  await writeDirectoryAtomic(directory, async (scratch) => {
    await writeFileAtomic(join(scratch, "config.json"), `${JSON.stringify(modelConfigJson(config), null, 2)}\n`);
    await writeFileAtomic(join(scratch, "model.safetensors"), safetensorsParts(tensorsOf(config, parameters), { format: "pt" }));
    if (companionsFrom !== null) await copyFiles(companionsFrom, scratch, (name) => companions.test(name));
  });
}
