import { rm } from "node:fs/promises";
import { join } from "node:path";
import { killMarked } from "@slime/platform";
import { hostEnvironment } from "@slime/rpc";
import { clusterAt, waitForCluster } from "./join.js";
import { nodeLimits } from "./limits.js";
import { type NodeDirectory, newDirectory, saveNodeRecord, takeOver } from "./node-directory.js";
import type { NodeOptions, NodeTools } from "./node-options.js";

/** What makes two joins the same node: everything that was declared. */
function signatureOf(options: NodeOptions): string {
  return JSON.stringify([options.name, options.declared, Object.entries(options.labels).sort()]);
}

/**
 * The state directory of this daemon: that of an equal one that died, else a new one.
 * @throws SlimeError `head.unavailable` when there is neither a directory nor a head, `state.locked`, `disk.full`.
 */
export async function claimDirectory(options: NodeOptions, tools: NodeTools): Promise<NodeDirectory> {
  const { clock, log, platform } = tools;
  const find = {
    root: options.stateDir ?? options.nodesDir,
    exact: options.stateDir !== null,
    headAddress: options.headAddress,
    signature: signatureOf(options),
    processes: platform.processes,
  };
  const found = await takeOver(find);
  if (found !== null) {
    // A head that answers knows its cluster; one that is away is the one we knew.
    const cluster = await clusterAt(options.headAddress, 1_000, clock);
    if (cluster === null || cluster === found.record.clusterId) return found;
    log.warn("node.cluster_changed", { was: found.record.clusterId, is: cluster });
    await killMarked(
      { name: hostEnvironment.nodeId, value: found.record.nodeId },
      { processes: platform.processes, clock, graceMs: nodeLimits.termGraceMs },
    );
    await rm(join(found.path, "processes"), { recursive: true, force: true });
    await saveNodeRecord(found.path, { ...found.record, left: true });
    await found.lock.release();
  }
  const clusterId = await waitForCluster(options.headAddress, options.joinTimeoutMs, clock, log, tools.signal);
  return newDirectory({ ...find, clusterId, random: tools.random });
}
