import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { ExportedTensor } from "@slime/backend";
import { seededRandom } from "@slime/core";
import { Fnv1a64 } from "../checksum.js";
import type { SharedWeights } from "../weight-source.js";
import { doubleVocabulary } from "./double-model.js";

/** Tensors of a model that exists to have names and shapes. */
export const tinyShapes: readonly (readonly [string, readonly number[]])[] = [
  ["model.embed_tokens.weight", [doubleVocabulary, 8]],
  ["model.layers.0.self_attn.q_proj.weight", [8, 8]],
  ["model.layers.0.mlp.down_proj.weight", [8, 16]],
  ["model.norm.weight", [8]],
  ["lm_head.weight", [doubleVocabulary, 8]],
];

export interface TinyExport {
  readonly bytes: Buffer;
  readonly tensors: readonly ExportedTensor[];
}

/** Weights that only this seed has, laid out as a trainer's export. */
export function tinyWeights(seed: number, shapes: readonly (readonly [string, readonly number[]])[] = tinyShapes): TinyExport {
  const random = seededRandom(seed);
  const tensors: ExportedTensor[] = [];
  const values: number[] = [];
  for (const [name, shape] of shapes) {
    tensors.push({ name, shape, offset: values.length * 4 });
    const count = shape.reduce((product, size) => product * size, 1);
    for (let i = 0; i < count; i++) values.push(random.unit() - 0.5);
  }
  return { bytes: Buffer.from(Float32Array.from(values).buffer), tensors };
}

/** Writes weights where an engine takes an export from. */
export async function writeTinyExport(path: string, { bytes, tensors }: TinyExport): Promise<SharedWeights> {
  await writeFile(path, bytes);
  const sum = new Fnv1a64();
  sum.add(bytes);
  return { kind: "shared-memory", path, checksum: sum.hex, bytes: bytes.length, tensors };
}

/** Writes weights as a model directory. */
export async function writeTinyCheckpoint(directory: string, { bytes, tensors }: TinyExport): Promise<string> {
  await mkdir(directory, { recursive: true });
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  for (const { name, shape, offset } of tensors)
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + shape.reduce((product, size) => product * size, 4)] };
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(join(directory, "model.safetensors"), Buffer.concat([length, text, bytes]));
  const config = { architectures: ["Qwen3ForCausalLM"], model_type: "qwen3", vocab_size: doubleVocabulary, tie_word_embeddings: false };
  await writeFile(join(directory, "config.json"), JSON.stringify(config));
  return directory;
}
