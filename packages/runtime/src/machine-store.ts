import { accessSync, constants } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ObjectStore } from "@slime/object-store";
import { type CodecHooks, encodeValueFrame } from "@slime/rpc";
import type { ValueStore } from "./ports.js";

/** Up to here a copy at once is cheaper than turns of the event loop; what a caller changes afterwards does not matter. */
const atOnceBytesMax = 8 * 1024 * 1024;

/** The machine's object store, opened on first use. Objects belong to the job. */
export function machineStore(dir: string, jobId: () => string, hooks: CodecHooks): ValueStore {
  let opened: ObjectStore | undefined;
  const store = () => (opened ??= new ObjectStore({ dir }));
  return {
    async put(value) {
      const parts = encodeValueFrame(value, hooks);
      const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
      return bytes <= atOnceBytesMax ? store().putSync(jobId(), parts) : store().put(jobId(), parts);
    },
    async get(object) {
      return (await store().getValue(object, hooks)).value;
    },
    async free(objects) {
      for (const object of objects) store().free(object);
    },
  };
}

/** Where a cluster's objects lie on this machine, for a process that no daemon started and told. */
export function storeDirOf(clusterId: string, env: Readonly<Record<string, string | undefined>>): string {
  return join(
    env["SLIME_PLATFORM"] !== "portable" && writable("/dev/shm") ? "/dev/shm" : tmpdir(),
    `slime-${clusterId.slice("cluster_".length, "cluster_".length + 8)}`,
  );
}

function writable(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
