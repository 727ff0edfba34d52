import { randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { SlimeError } from "@slime/core";
import { errnoOf, translateIoError } from "./io-errors.js";
import type { ProcessIdentity, ProcessTable } from "./process-table.js";

/** Who holds a lock: a living process, by identity, so that a lock never outlives its owner. */
export interface LockOwner extends ProcessIdentity {
  readonly version: 1;
  /** For the message: "slime-head at 127.0.0.1:6380". */
  readonly what: string;
}

export interface Lock extends AsyncDisposable {
  readonly path: string;
  readonly release: () => Promise<void>;
}

/**
 * Takes the lock at `path` for this process. A lock whose owner no longer lives is taken over.
 * @throws SlimeError `state.locked` with the owner's pid when a living process holds it; `disk.full`.
 */
export async function acquireLock(path: string, what: string, processes: ProcessTable): Promise<Lock> {
  const identity = await processes.identify(process.pid);
  if (identity === null) throw new Error("this process is not in its own process table");
  const owner: LockOwner = { version: 1, ...identity, what };
  const mine = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
  try {
    await writeFile(mine, `${JSON.stringify(owner)}\n`, { mode: 0o600, flag: "wx" });
    for (let round = 0; round < 10; round++) {
      if (await linked(mine, path)) return heldLock(path, owner);
      const holder = await lockOwner(path);
      if (holder !== null && (await processes.isAlive(holder))) {
        throw new SlimeError("state.locked", `${path} is held by ${holder.what} (pid ${holder.pid}): stop it first`, {
          path,
          pid: holder.pid,
        });
      }
      await removeStale(path, holder);
    }
    throw new SlimeError("state.locked", `${path} could not be taken: others keep taking it`, { path, pid: null });
  } catch (error) {
    throw translateIoError(error, path);
  } finally {
    await rm(mine, { force: true });
  }
}

/** The owner a lock file names, living or not; null when there is no lock or it is unreadable. */
export async function lockOwner(path: string): Promise<LockOwner | null> {
  try {
    const owner = JSON.parse(await readFile(path, "utf8")) as Partial<LockOwner> | null;
    const { bootId, pid, startTime, what } = owner ?? {};
    if (typeof bootId !== "string" || typeof pid !== "number" || typeof startTime !== "string") return null;
    return { version: 1, bootId, pid, startTime, what: typeof what === "string" ? what : "a process" };
  } catch {
    return null;
  }
}

/** The living owner of a lock, or null. */
export async function livingOwner(path: string, processes: ProcessTable): Promise<LockOwner | null> {
  const owner = await lockOwner(path);
  return owner !== null && (await processes.isAlive(owner)) ? owner : null;
}

async function linked(mine: string, path: string): Promise<boolean> {
  try {
    await link(mine, path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "EEXIST") return false;
    throw error;
  }
}

/** Two may find the same stale lock: the rename lets one win, and who moved a fresh lock away puts it back. */
async function removeStale(path: string, stale: LockOwner | null): Promise<void> {
  const aside = `${path}.stale.${process.pid}.${randomBytes(4).toString("hex")}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  const moved = await lockOwner(aside);
  if (moved !== null && (moved.pid !== stale?.pid || moved.startTime !== stale.startTime)) await linked(aside, path);
  await rm(aside, { force: true });
}

function heldLock(path: string, owner: LockOwner): Lock {
  let released = false;
  const release = async () => {
    if (released) return;
    released = true;
    const now = await lockOwner(path);
    if (now?.pid === owner.pid && now.startTime === owner.startTime) await rm(path, { force: true });
  };
  return { path, release, [Symbol.asyncDispose]: release };
}
