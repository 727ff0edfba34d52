import { dirname, join } from "node:path";
import { SlimeError } from "@slime/core";
import { copyFiles, readJson, readWanted, writeDirectoryAtomic, writeFileAtomic } from "./files.js";
import { parameterLayout } from "./layout.js";
import { type ModelConfig, modelConfigJson, parseModelConfig } from "./model-config.js";
import { decodeSafetensors, encodeSafetensors, type NamedTensor } from "./safetensors.js";

/** What goes with a model unchanged: tokenizer and templates, under the names that Hugging Face gives them. */
const companions =
  /^(tokenizer.*\.json|vocab\.(json|txt)|merges\.txt|special_tokens_map\.json|added_tokens\.json|generation_config\.json|chat_template\.(jinja|json))$/;

/** Reads `config.json` of a Hugging Face directory. */
export async function readModelConfig(directory: string): Promise<ModelConfig> {
  const path = join(directory, "config.json");
  return parseModelConfig(await readJson(path, "the model's config.json"), path);
}

/**
 * Reads the weights of a Hugging Face directory (model.safetensors, or the files of model.safetensors.index.json) into the layout's order.
 * @throws `checkpoint.invalid` naming every tensor that is missing, unknown or of another shape; `file.missing`.
 */
export async function readModelWeights(directory: string, config: ModelConfig): Promise<Float32Array> {
  const layout = parameterLayout(config);
  const out = new Float32Array(layout.count);
  const found = await readTensors(directory);
  const problems: string[] = [];
  for (const slot of layout.tensors) {
    const tensor = found.get(slot.name);
    if (tensor === undefined) problems.push(`${slot.name} is missing`);
    else if (tensor.shape.join() !== slot.shape.join())
      problems.push(`${slot.name} has shape [${tensor.shape.join(", ")}], config.json wants [${slot.shape.join(", ")}]`);
    else out.set(tensor.data, slot.offset);
  }
  const known = new Set(layout.tensors.map((slot) => slot.name));
  // A tied head may be written out; it is the embedding again.
  for (const name of found.keys())
    if (!known.has(name) && !(config.tiedHead && name === "lm_head.weight")) problems.push(`${name} is not part of this architecture`);
  if (problems.length > 0)
    throw new SlimeError("checkpoint.invalid", `${directory}: ${problems.join("; ")}`, { path: directory, reason: problems.join("; ") });
  return out;
}

async function readTensors(directory: string): Promise<ReadonlyMap<string, NamedTensor>> {
  const single = join(directory, "model.safetensors");
  const index = join(directory, "model.safetensors.index.json");
  try {
    return decodeSafetensors(await readWanted(single, "the model's weights"), single);
  } catch (error) {
    if (!SlimeError.is(error, "file.missing")) throw error;
    const map = (await readJson(
      index,
      "the model's weights (model.safetensors or its index); a directory without weights can only start a run from scratch",
    )) as { readonly weight_map?: Readonly<Record<string, string>> } | null;
    const tensors = new Map<string, NamedTensor>();
    for (const file of new Set(Object.values(map?.weight_map ?? {}))) {
      const path = join(directory, file);
      if (dirname(path) !== join(directory))
        throw new SlimeError("checkpoint.invalid", `${index}: ${file} lies outside of the model's directory`, {
          path: index,
          reason: `${file} lies outside of the model's directory`,
        });
      for (const [name, tensor] of decodeSafetensors(await readWanted(path, "a shard of the model's weights"), path))
        tensors.set(name, tensor);
    }
    return tensors;
  }
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
    await writeFileAtomic(join(scratch, "model.safetensors"), encodeSafetensors(tensorsOf(config, parameters), { format: "pt" }));
    if (companionsFrom !== null) await copyFiles(companionsFrom, scratch, (name) => companions.test(name));
  });
}
