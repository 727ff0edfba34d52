import { ObjectId, type Random, SlimeError } from "@slime/core";
import { type CodecHooks, decodeValueFrame, encodeValue, type ObjectDescriptor } from "@slime/rpc";
import type { ValueStore } from "../ports.js";

/** Stored values as bytes in memory, shared by all runtimes of a test; every read decodes anew, as from the machine's store. */
export interface MemoryObjects {
  readonly storeFor: (hooks: CodecHooks) => ValueStore;
  /** Objects not freed yet. */
  readonly size: () => number;
}

export function memoryObjects(random: Random): MemoryObjects {
  const objects = new Map<string, Uint8Array>();
  return {
    size: () => objects.size,
    storeFor: (hooks) => ({
      async put(value) {
        const bytes = encodeValue(value, hooks);
        const object: ObjectDescriptor = { objectId: ObjectId.create(random), jobId: "job_0000000000000001", bytes: bytes.length };
        objects.set(object.objectId, bytes);
        return object;
      },
      async get({ objectId }) {
        const bytes = objects.get(objectId);
        if (bytes === undefined) throw new SlimeError("object.lost", `${objectId} was freed`, { objectId, reason: "freed" });
        return decodeValueFrame(Uint8Array.from(bytes), hooks);
      },
      async free(freed) {
        for (const { objectId } of freed) objects.delete(objectId);
      },
    }),
  };
}
