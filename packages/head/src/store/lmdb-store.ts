import { type FileHandle, mkdir, open as openFile, statfs } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { SlimeError } from "@slime/core";
import { type Database, open, type RootDatabase } from "lmdb";
import { type TableName, tableNames } from "../state/head-state.js";
import { type StateStore, type StoredState, type StoreMeta, storeFormat } from "./store.js";

/** Magic numbers of file systems over a network, where LMDB's locks and memory maps do not hold (linux/magic.h and the file systems' own). */
const networkFileSystems: ReadonlyMap<number, string> = new Map([
  [0x6969, "NFS"],
  [0x517b, "SMB"],
  [0xff534d42, "CIFS"],
  [0xfe534d42, "SMB2"],
  [0x01021997, "9P"],
  [0x0bd00bd0, "Lustre"],
  [0x00c36400, "Ceph"],
  [0x5346414f, "AFS"],
  [0x47504653, "GPFS"],
  [0x19830326, "BeeGFS"],
  [0xaad7aaea, "Panasas"],
]);

export interface LmdbStoreOptions {
  /** The head's state directory; the store is `state.mdb` in it. */
  readonly directory: string;
  /** Seam for tests: the magic number of the directory's file system. */
  readonly fileSystemOf?: (directory: string) => Promise<number>;
  /** Bytes the store may grow to; default: as the disk allows. */
  readonly mapBytesMax?: number;
}

/** The head's records in LMDB, each table a named database. A commit is one transaction, on disk when it settles (D1). */
export function lmdbStore(options: LmdbStoreOptions): StateStore {
  const path = join(options.directory, "state.mdb");
  let root: RootDatabase<unknown, string> | null = null;
  const tables = new Map<TableName, Database<unknown, string>>();
  let meta: StoreMeta | null = null;
  const need = (): RootDatabase<unknown, string> => {
    if (root === null) throw new SlimeError("state.locked", `${path} is not open`, { path, pid: process.pid });
    return root;
  };
  const store: StateStore = {
    async open(newClusterId) {
      await refuseNetworkFileSystem(options.directory, options.fileSystemOf ?? fileSystemOf);
      await checkHeader(path);
      try {
        // overlappingSync off: a commit settles after its fsync, not before. eventTurnBatching off: a commit is one batch of our own; where the
        // library makes one of each turn, a failed write rejects a promise that nobody gets to see, and that ends the process.
        root = open<unknown, string>({
          path,
          noSubdir: true,
          encoding: "msgpack",
          overlappingSync: false,
          eventTurnBatching: false,
          maxDbs: 16,
          ...(options.mapBytesMax === undefined ? {} : { mapSize: options.mapBytesMax }),
        });
        for (const name of tableNames) tables.set(name, root.openDB<unknown, string>({ name, encoding: "msgpack" }));
      } catch (error) {
        throw readFault(path, error);
      }
      const stored = readAll(path, root, tables);
      meta =
        stored.meta === null
          ? { format: storeFormat, clusterId: newClusterId(), epoch: 1, headMs: 0 }
          : { ...stored.meta, epoch: stored.meta.epoch + 1 };
      try {
        await need().put("meta", meta); // D2
      } catch (error) {
        throw await writeFault(path, error);
      }
      return { meta, records: stored.records };
    },
    async commit(changes, headMs) {
      const database = need();
      if (meta === null) throw new SlimeError("state.locked", `${path} is not open`, { path, pid: process.pid });
      const next = { ...meta, headMs };
      try {
        await database.batch(() => {
          for (const { table, id, after } of changes) {
            const target = tables.get(table);
            if (after === undefined) target?.remove(id);
            else target?.put(id, after);
          }
          database.put("meta", next);
        });
      } catch (error) {
        throw await writeFault(path, error);
      }
      meta = next;
    },
    async close() {
      const database = root;
      root = null;
      await database?.close();
    },
    [Symbol.asyncDispose]: () => store.close(),
  };
  return store;
}

/** LMDB trusts its file: one that is no LMDB file, or was cut short, would take the process down. So its two meta pages are looked at first. */
async function checkHeader(path: string): Promise<void> {
  const damaged = (where: string) =>
    new SlimeError("state.damaged", `${path} is damaged (${where}): restore a copy of the file, or start anew with another --state-dir`, {
      path,
      where,
    });
  let file: FileHandle;
  try {
    file = await openFile(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw readFault(path, error);
  }
  try {
    const { size } = await file.stat();
    if (size === 0) return;
    const { buffer, bytesRead } = await file.read(Buffer.alloc(256), 0, 256, 0);
    // Page header of 24 bytes; then magic, version, address, map size, page size.
    if (bytesRead < 256 || buffer.readUInt32LE(24) !== lmdbMagic) throw damaged("it does not begin as an LMDB file");
    const pageBytes = buffer.readUInt32LE(48);
    if (pageBytes < 512 || size < 2 * pageBytes || size % pageBytes !== 0)
      throw damaged(`${size} bytes are no whole pages of ${pageBytes}`);
    const second = await file.read(Buffer.alloc(28), 0, 28, pageBytes);
    if (second.buffer.readUInt32LE(24) !== lmdbMagic) throw damaged("its second meta page");
  } finally {
    await file.close();
  }
}

const lmdbMagic = 0xbeefc0de;

/** Walks every key and decodes every value: a damaged store is refused, never guessed at. */
function readAll(
  path: string,
  root: RootDatabase<unknown, string>,
  tables: ReadonlyMap<TableName, Database<unknown, string>>,
): { readonly meta: StoreMeta | null; readonly records: StoredState["records"] } {
  try {
    const meta = (root.get("meta") ?? null) as StoreMeta | null;
    if (meta !== null && meta.format !== storeFormat)
      throw new SlimeError(
        "peer.incompatible",
        `${path} has format ${meta.format}, this version reads ${storeFormat}: use the version that wrote it, or another --state-dir`,
        { ours: String(storeFormat), theirs: String(meta.format) },
      );
    const records = Object.fromEntries(
      tableNames.map((name) => [
        name,
        [...(tables.get(name)?.getRange() ?? [])].map(({ key, value }) => [key, checked(path, name, key, value)]),
      ]),
    );
    return { meta, records: records as unknown as StoredState["records"] };
  } catch (error) {
    throw readFault(path, error);
  }
}

function checked(path: string, table: TableName, key: string, value: unknown): unknown {
  const sound = table === "kv" ? value instanceof Uint8Array : typeof value === "object" && value !== null;
  if (!sound)
    throw new SlimeError(
      "state.damaged",
      `${path}: the record ${table}/${key} is damaged; restore a copy of the file, or start anew with another --state-dir`,
      { path, where: `${table}/${key}` },
    );
  return value;
}

function readFault(path: string, error: unknown): SlimeError {
  if (SlimeError.isAny(error)) return error;
  return new SlimeError(
    "state.damaged",
    `${path} cannot be read: ${error instanceof Error ? error.message : String(error)}; restore a copy of the file, or start anew with another --state-dir`,
    { path, where: "open" },
    { cause: error },
  );
}

/** Every failed write counts as a full disk unless it says otherwise: the head cannot promise anything any more. */
async function writeFault(path: string, error: unknown): Promise<SlimeError> {
  if (SlimeError.isAny(error)) return error;
  // LMDB says why in a promise beside the error; it has settled by the next turn.
  const said = error instanceof Error && "commitError" in error ? Promise.resolve(error.commitError) : Promise.reject(error);
  const cause: unknown = await Promise.race([said, setImmediate(error)]).catch((reason: unknown) => reason);
  const message = cause instanceof Error ? cause.message.replace(/:.*/s, "") : String(cause);
  return new SlimeError(
    "disk.full",
    `${path} could not be written (${message}): free space on its disk and restart the head; until then it only reads`,
    { path, needed: null },
    { cause },
  );
}

async function refuseNetworkFileSystem(directory: string, probe: (directory: string) => Promise<number>): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const name = networkFileSystems.get((await probe(directory)) >>> 0);
  if (name === undefined) return;
  throw new SlimeError(
    "unsupported",
    `${directory} lies on ${name}, a network file system: LMDB's locks do not hold there; choose a local --state-dir`,
    { what: `a state directory on ${name}`, why: "LMDB needs a local file system" },
  );
}

async function fileSystemOf(directory: string): Promise<number> {
  return (await statfs(directory)).type;
}
