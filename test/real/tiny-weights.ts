import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { WeightUpdate } from "@slime/backend";
import { type ModelConfig, parameterLayout, readModelConfig, readModelWeights, writeHfCheckpoint } from "@slime/embedded";
import { checksumOf } from "../conformance/tiny-model.js";

/** Weights by version, in both forms that a server takes; `folder` holds them. */
export interface VersionedWeights {
  readonly config: ModelConfig;
  /** A Hugging Face directory: what /update_weights_from_disk reads. */
  readonly asDirectory: (version: number) => Promise<WeightUpdate["source"]>;
  /** A trainer's export in shared memory, each tensor under its Hugging Face name. */
  readonly asSharedMemory: (version: number) => Promise<WeightUpdate["source"]>;
}

/**
 * A checkpoint's weights and as many others of the same shape as one wants: those of version n are the checkpoint's, each tensor turned
 * round by n places. Cheap to make, of the same statistics, and no two alike.
 */
export async function versionedWeights(checkpoint: string, folder: string): Promise<VersionedWeights> {
  const config = await readModelConfig(checkpoint);
  const original = await readModelWeights(checkpoint, config);
  const { tensors } = parameterLayout(config);
  const turned = (version: number) => {
    const weights = new Float32Array(original.length);
    for (const { offset, count } of tensors) {
      const at = (version * 7919) % count;
      weights.set(original.subarray(offset + at, offset + count), offset);
      weights.set(original.subarray(offset, offset + at), offset + count - at);
    }
    return weights;
  };
  return {
    config,
    async asDirectory(version) {
      const path = join(folder, `version-${version}`);
      await rm(path, { recursive: true, force: true });
      await writeHfCheckpoint(path, config, turned(version), null);
      return { kind: "directory", path };
    },
    async asSharedMemory(version) {
      const weights = turned(version);
      const path = join(folder, `weights-${version}.bin`);
      await writeFile(path, new Uint8Array(weights.buffer));
      const exported = tensors.map(({ name, shape, offset }) => ({ name, shape, offset: offset * 4 }));
      return { kind: "shared-memory", path, bytes: weights.byteLength, checksum: checksumOf(weights), tensors: exported };
    },
  };
}
