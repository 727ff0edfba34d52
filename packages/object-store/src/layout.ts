/**
 * Names within a store's directory:
 * `store.json` its capacity; `<jobId>/<objectId>` a sealed object; `<jobId>/.w-<pid>-<objectId>` one being written;
 * `<jobId>/.f-<pid>-<objectId>` one being freed; `<jobId>/.s-<pid>-<name>/` a process's scratch directory; `.dead-<pid>-<jobId>` a job being freed;
 * `free/<class bytes>/<objectId>` a segment that waits to be used again.
 */
import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { errnoOf } from "@slime/platform";

export const settingsFile = "store.json";
export const freeDir = "free";
const working = /^\.(?:w|f|s|dead)-(\d+)-/;

/** The process that is at work on a temporary name; null for any other name. */
export function workerOf(name: string): number | null {
  const match = working.exec(name);
  return match === null ? null : Number(match[1]);
}

/** A directory of this process's own beside its job's objects, for files that others read in place. It goes with the process or with the job. */
export function scratchDirectory(storeDir: string, jobId: string, name: string): string {
  const path = join(storeDir, jobId, `.s-${process.pid}-${name}`);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
}

/** Directories of jobs in a store. */
export function jobDirsIn(dir: string): readonly string[] {
  return names(dir).filter((name) => name.startsWith("job_"));
}

/** Names in a directory; none when it is gone. */
export function names(dir: string): readonly string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Bytes of the files below a directory and how many they are; what vanishes meanwhile counts as nothing. */
export function weigh(dir: string): { readonly files: number; readonly bytes: number } {
  let files = 0;
  let bytes = 0;
  for (const name of names(dir)) {
    const stat = statSync(join(dir, name), { throwIfNoEntry: false });
    if (stat === undefined || !stat.isFile()) continue;
    files++;
    bytes += stat.size;
  }
  return { files, bytes };
}

/** Unlinks a file or a whole directory; what is not there is fine, because several processes may clear up at once. */
export function remove(path: string): void {
  rmSync(path, { recursive: true, force: true });
}
