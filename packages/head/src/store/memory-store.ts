import { type Records, type TableName, tableNames } from "../state/head-state.js";
import { type StateStore, type StoredState, type StoreMeta, storeFormat } from "./store.js";

/** What a memory store keeps between the lives of heads; records are copied in and out, as through a disk. */
export interface MemoryDisk {
  meta: StoreMeta | null;
  readonly tables: { readonly [T in TableName]: Map<string, unknown> };
}

/** An empty disk: the first head that opens it begins a new cluster at epoch 1. */
export function memoryDisk(): MemoryDisk {
  return { meta: null, tables: { nodes: new Map(), actors: new Map(), groups: new Map(), jobs: new Map(), kv: new Map() } };
}

/**
 * A store that outlives its head and nothing else: for tests and for clusters in one process.
 * @param beforeCommit may reject, as a full disk does: then nothing of the commit is kept.
 */
export function memoryStore(disk: MemoryDisk = memoryDisk(), beforeCommit: () => Promise<void> = async () => {}): StateStore {
  const store: StateStore = {
    async open(newClusterId) {
      const meta: StoreMeta =
        disk.meta === null
          ? { format: storeFormat, clusterId: newClusterId(), epoch: 1, headMs: 0 }
          : { ...disk.meta, epoch: disk.meta.epoch + 1 };
      disk.meta = meta;
      return {
        meta,
        records: Object.fromEntries(
          tableNames.map((name) => [name, [...disk.tables[name]].map(([id, record]) => [id, copy(record)])]),
        ) as unknown as StoredState["records"],
      };
    },
    async commit(changes, headMs) {
      await beforeCommit();
      for (const { table, id, after } of changes) {
        if (after === undefined) disk.tables[table].delete(id);
        else disk.tables[table].set(id, copy(after));
      }
      if (disk.meta !== null) disk.meta = { ...disk.meta, headMs };
    },
    async close() {},
    [Symbol.asyncDispose]: () => store.close(),
  };
  return store;
}

/** A deep copy that keeps buffers buffers, as the other stores do. */
function copy(value: unknown): Records[TableName] {
  const walk = (at: unknown): unknown => {
    if (at instanceof Uint8Array) return Buffer.from(at);
    if (Array.isArray(at)) return at.map(walk);
    if (typeof at === "object" && at !== null) return Object.fromEntries(Object.entries(at).map(([key, item]) => [key, walk(item)]));
    return at;
  };
  return walk(value) as Records[TableName];
}
