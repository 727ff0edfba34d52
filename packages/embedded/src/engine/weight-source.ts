import { type FileHandle, open } from "node:fs/promises";
import { SlimeError } from "@slime/core";
import { readModelConfig, readModelWeights } from "../hf-checkpoint.js";
import { parameterLayout } from "../layout.js";
import type { ModelConfig } from "../model-config.js";

/** Parameters in the layout's order, and what was computed over their bytes. */
export interface LoadedWeights {
  readonly values: Float32Array<ArrayBuffer>;
  readonly checksum: string;
}

/** FNV-1a 64 over the bytes of the values, as 16 hex digits: the function a weight export names. */
export type Checksum = (values: Float32Array<ArrayBuffer>) => string;

/**
 * Reads a run of single-precision parameters, in `parameterLayout`'s order, that a trainer left under `path` (usually shared memory).
 * @param values where they go, one place per parameter. @throws `weights.mismatch` when size or checksum is not what the sender said; nothing of it is used then.
 */
export async function readSharedWeights(
  config: ModelConfig,
  source: { readonly path: string; readonly bytes: number; readonly checksum: string },
  version: string,
  checksumOf: Checksum,
  values: Float32Array<ArrayBuffer>,
): Promise<LoadedWeights> {
  const wanted = parameterLayout(config).count * 4;
  const mismatch = (reason: string, cause?: unknown) =>
    new SlimeError(
      "weights.mismatch",
      `${source.path}: ${reason}`,
      { engine: "embedded", version: Number(version) || 0, reason },
      cause === undefined ? {} : { cause },
    );
  if (source.bytes !== wanted)
    throw mismatch(`the push has ${source.bytes} bytes, this model has ${wanted}; trainer and engine must load the same config.json`);
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  let file: FileHandle | undefined;
  try {
    file = await open(source.path, "r");
  } catch (cause) {
    throw mismatch(`cannot be opened: ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
  try {
    const { size } = await file.stat();
    if (size < wanted) throw mismatch(`the file has ${size} bytes, ${wanted} were announced`);
    for (let at = 0; at < wanted; ) {
      const { bytesRead } = await file.read(bytes, at, wanted - at, at);
      if (bytesRead === 0) throw mismatch(`the file ended after ${at} of ${wanted} bytes`);
      at += bytesRead;
    }
  } finally {
    await file.close();
  }
  const checksum = checksumOf(values);
  if (checksum !== source.checksum) throw mismatch(`checksum ${checksum} instead of ${source.checksum}: the bytes changed on the way`);
  return { values, checksum };
}

/** Reads a Hugging Face directory of the same shape. @param values where they go. @throws `checkpoint.invalid`, `file.missing`. */
export async function readDirectoryWeights(
  config: ModelConfig,
  directory: string,
  checksumOf: Checksum,
  values: Float32Array<ArrayBuffer>,
): Promise<LoadedWeights> {
  const found = await readModelConfig(directory);
  const ours = parameterLayout(config);
  const theirs = parameterLayout(found);
  const shape = (layout: typeof ours) => layout.tensors.map((t) => `${t.name}[${t.shape.join()}]`).join(" ");
  if (shape(ours) !== shape(theirs))
    throw new SlimeError("checkpoint.invalid", `${directory} holds a model of another shape than the one served`, {
      path: directory,
      reason: "another shape",
    });
  await readModelWeights(directory, config, values);
  return { values, checksum: checksumOf(values) };
}
