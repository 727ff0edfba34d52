import { readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { acquireLock, errnoOf, type Lock, livingOwner, type ProcessTable, privateDirectory } from "@slime/platform";

/**
 * What the daemons of one cluster on one machine share: the socket directory, and beside it the object store. Each daemon
 * signs in; the last one out removes both. Invariant N6: nothing of a cluster stays on a machine after its last daemon's orderly stop.
 */
export interface Site {
  readonly socketDir: string;
  readonly portsDir: string;
  /** Signs out; resolves with true when nobody else was there and the socket directory is gone. */
  readonly leave: () => Promise<boolean>;
}

/** Signs a daemon in on its machine. */
export async function enterSite(socketDir: string, nodeId: string, processes: ProcessTable): Promise<Site> {
  const nodesDir = join(socketDir, "nodes");
  const lock = await signIn(nodesDir, nodeId, processes);
  return {
    socketDir,
    portsDir: join(socketDir, "ports"),
    async leave() {
      await lock.release();
      for (const name of await names(nodesDir)) {
        const path = join(nodesDir, name);
        if ((await livingOwner(path, processes)) === null) await rm(path, { force: true });
      }
      try {
        await rmdir(nodesDir); // fails while anybody is signed in, also one who came this very moment
      } catch (error) {
        if (["ENOTEMPTY", "EEXIST"].includes(errnoOf(error))) return false;
        if (errnoOf(error) !== "ENOENT") throw error;
      }
      await rm(socketDir, { recursive: true, force: true });
      return true;
    },
  };
}

/** The directory may be removed by the last one out while we come in: then it is made again. */
async function signIn(nodesDir: string, nodeId: string, processes: ProcessTable): Promise<Lock> {
  for (let round = 0; ; round++) {
    await privateDirectory(nodesDir);
    try {
      return await acquireLock(join(nodesDir, nodeId), `slime-worker ${nodeId}`, processes);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" || round === 5) throw error;
    }
  }
}

async function names(dir: string): Promise<readonly string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}
