import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, SlimeError, systemRandom } from "@slime/core";
import { ObjectStore } from "@slime/object-store";
import {
  acquireLock,
  killMarked,
  livingOwner,
  type Platform,
  type ProcessEntry,
  portLeases,
  socketDirOf,
  storeDirOf,
} from "@slime/platform";
import { hostEnvironment, nodeSocketName } from "@slime/rpc";
import { nodeLimits } from "./limits.js";
import { directories, lockPath, type NodeRecord, readNodeRecord, saveNodeRecord } from "./node-directory.js";
import { enterSite } from "./site.js";

/** A node as its state directory on this machine shows it, whether or not any head is there. */
export interface LocalNode {
  readonly path: string;
  readonly record: NodeRecord;
  /** Of the living daemon; null when it is dead. */
  readonly pid: number | null;
  /** Living processes that carry the node's mark. */
  readonly processes: readonly ProcessEntry[];
}

/** Nodes of this machine by their state directories; those that left in order are not listed. */
export async function localNodes(nodesDir: string, extra: readonly string[], platform: Platform): Promise<readonly LocalNode[]> {
  const found: LocalNode[] = [];
  for (const path of new Set([...(await directories(nodesDir)), ...extra])) {
    const record = await readNodeRecord(path);
    if (record === null || record.left) continue;
    const owner = await livingOwner(lockPath(path), platform.processes);
    const processes = await platform.processes.marked({ name: hostEnvironment.nodeId, value: record.nodeId });
    found.push({ path, record, pid: owner?.pid ?? null, processes });
  }
  return found;
}

/**
 * Ends what a dead daemon left: its processes, socket, leased ports and, when no other daemon of the cluster is here, the
 * socket directory and the object store. Logs stay. Resolves with the pids that could not be ended.
 * @throws SlimeError `state.locked` when a daemon took the directory over meanwhile.
 */
export async function endDeadNode(
  node: LocalNode,
  tools: {
    readonly platform: Platform;
    readonly clock: Clock;
    readonly env: Readonly<Record<string, string | undefined>>;
    readonly graceMs: number;
  },
): Promise<readonly number[]> {
  const { platform, clock, env } = tools;
  const { nodeId, clusterId } = node.record;
  await using lock = await acquireLock(lockPath(node.path), `slime-worker stop of ${nodeId}`, platform.processes);
  const left = await killMarked(
    { name: hostEnvironment.nodeId, value: nodeId },
    { processes: platform.processes, clock, graceMs: Math.min(tools.graceMs, nodeLimits.stopGraceMs) },
  );
  const socketDir = socketDirOf(clusterId, env["SLIME_SOCKET_DIR"]);
  const site = await enterSite(socketDir, nodeId, platform.processes);
  await rm(join(socketDir, nodeSocketName(nodeId)), { force: true });
  await portLeases(site.portsDir, nodeId, { random: systemRandom, keep: () => false }); // opening them drops an earlier life's
  if (await site.leave()) new ObjectStore({ dir: storeDirOf(clusterId, platform.sharedMemoryRoot, env["SLIME_STORE_DIR"]) }).destroy();
  await rm(join(node.path, "processes"), { recursive: true, force: true });
  await saveNodeRecord(node.path, { ...node.record, left: true });
  await lock.release();
  return left;
}

/** The one node that `wanted` names: its id, or the beginning of it that no other has. @throws SlimeError `not_found`, `conflict`. */
export function findLocal(nodes: readonly LocalNode[], wanted: string): LocalNode {
  const matches = nodes.filter(({ record }) => record.nodeId.startsWith(wanted) || record.nodeId.startsWith(`node_${wanted}`));
  const [first] = matches;
  if (first === undefined)
    throw new SlimeError("not_found", `no node ${wanted} on this machine; \`slime-worker status\` lists them`, {
      kind: "node",
      id: wanted,
    });
  if (matches.length > 1)
    throw new SlimeError("conflict", `${wanted} begins ${matches.length} node ids here: give more of it`, { kind: "node", id: wanted });
  return first;
}
