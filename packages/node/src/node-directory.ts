import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { NodeId, type Random, SlimeError } from "@slime/core";
import {
  acquireLock,
  errnoOf,
  type Lock,
  livingOwner,
  type ProcessTable,
  privateDirectory,
  readTextIfThere,
  writeFileAtomic,
} from "@slime/platform";

/**
 * What a node keeps over its daemon's lives, in `<state dir>/node.json`. Versioned JSON.
 * `left` is set by an orderly stop: such a directory keeps logs only, and its node id is used no more.
 */
export interface NodeRecord {
  readonly version: 1;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly headAddress: string;
  /** Of the daemon, from 1, raised at each start. */
  readonly incarnation: number;
  /** What the node was joined with; only an equal join takes its place. */
  readonly signature: string;
  readonly left: boolean;
}

/** A state directory held by this process alone. */
export interface NodeDirectory {
  readonly path: string;
  readonly record: NodeRecord;
  readonly lock: Lock;
}

/** Held by the living daemon of a state directory. */
export function lockPath(dir: string): string {
  return join(dir, "daemon.lock");
}

/** The node's record, or null where there is none. @throws SlimeError `state.damaged`. */
export async function readNodeRecord(dir: string): Promise<NodeRecord | null> {
  const path = join(dir, "node.json");
  const text = await readTextIfThere(path);
  if (text === null) return null;
  try {
    const value = JSON.parse(text) as Partial<NodeRecord>;
    const { version, nodeId, clusterId, headAddress, incarnation, signature, left } = value;
    if (
      version === 1 &&
      typeof nodeId === "string" &&
      typeof clusterId === "string" &&
      typeof headAddress === "string" &&
      typeof incarnation === "number" &&
      typeof signature === "string" &&
      typeof left === "boolean"
    ) {
      return { version, nodeId: NodeId.parse(nodeId), clusterId, headAddress, incarnation, signature, left };
    }
  } catch (cause) {
    throw new SlimeError(
      "state.damaged",
      `${path} cannot be read; move the directory away to join as a new node`,
      { path, where: "node.json" },
      { cause },
    );
  }
  throw new SlimeError("state.damaged", `${path} is of a version or shape not known here; move the directory away to join as a new node`, {
    path,
    where: "node.json",
  });
}

export interface FindOptions {
  /** Parent of the nodes' directories, or with `exact` the directory itself. */
  readonly root: string;
  readonly exact: boolean;
  readonly headAddress: string;
  readonly signature: string;
  readonly processes: ProcessTable;
}

/**
 * The directory of a daemon that died: same head, same declaration, nobody holds it. Taking it over is what keeps its
 * actors. Null when there is none. @throws SlimeError `state.locked` when an exact directory is held.
 */
export async function takeOver(options: FindOptions): Promise<NodeDirectory | null> {
  const candidates = options.exact ? [options.root] : await directories(options.root);
  for (const path of candidates) {
    const record = await readNodeRecord(path);
    if (record === null || record.left || record.headAddress !== options.headAddress) continue;
    if (!options.exact && (record.signature !== options.signature || (await livingOwner(lockPath(path), options.processes)) !== null))
      continue;
    const lock = await tryLock(path, record.nodeId, options);
    if (lock === null) continue;
    const next = { ...record, incarnation: record.incarnation + 1, signature: options.signature };
    await saveNodeRecord(path, next);
    return { path, record: next, lock };
  }
  return null;
}

/** A new node's directory. @throws SlimeError `state.locked` when an exact one is held, `disk.full`. */
export async function newDirectory(options: FindOptions & { readonly clusterId: string; readonly random: Random }): Promise<NodeDirectory> {
  const nodeId = NodeId.create(options.random);
  const path = options.exact ? options.root : join(options.root, nodeId);
  await privateDirectory(path);
  const lock = await acquireLock(lockPath(path), `slime-worker ${nodeId}`, options.processes);
  const record: NodeRecord = {
    version: 1,
    nodeId,
    clusterId: options.clusterId,
    headAddress: options.headAddress,
    incarnation: 1,
    signature: options.signature,
    left: false,
  };
  await saveNodeRecord(path, record);
  return { path, record, lock };
}

/** Writes the node's record, atomically. */
export function saveNodeRecord(path: string, record: NodeRecord): Promise<void> {
  return writeFileAtomic(join(path, "node.json"), `${JSON.stringify(record, null, 2)}\n`);
}

async function tryLock(path: string, nodeId: string, options: FindOptions): Promise<Lock | null> {
  try {
    return await acquireLock(lockPath(path), `slime-worker ${nodeId}`, options.processes);
  } catch (error) {
    if (!options.exact && SlimeError.is(error, "state.locked")) return null; // another join was faster
    throw error;
  }
}

/** The nodes' directories below `root`, in order of their ids. */
export async function directories(root: string): Promise<readonly string[]> {
  try {
    return (await readdir(root))
      .filter((name) => NodeId.is(name))
      .sort()
      .map((name) => join(root, name));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}
