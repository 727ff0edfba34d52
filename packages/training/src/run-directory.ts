/**
 * A run's files. Layout (README): run.json, journal.jsonl, ledger.jsonl, metrics.jsonl, spans.jsonl, samples/, checkpoints/step-N/, logs/.
 * R1 a checkpoint directory has its final name only when everything in it is on disk; R2 a run directory has one living owner.
 */
import { createHash } from "node:crypto";
import { createReadStream, type Dirent } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, rmdir, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { SlimeError } from "@slime/core";
import { openLogFile } from "@slime/data";
import type { CheckpointFile, RunStorage, StoredCheckpoint } from "./run-records.js";

/** Where each thing of a run lies. */
export interface RunPaths {
  readonly root: string;
  readonly runJson: string;
  readonly journal: string;
  readonly ledger: string;
  readonly metrics: string;
  readonly spans: string;
  readonly samples: string;
  readonly checkpoints: string;
  readonly logs: string;
  readonly lock: string;
}

/** @param checkpoints `--save`, when it is not the run's own directory. */
export function runPaths(root: string, checkpoints: string | null = null): RunPaths {
  const at = (name: string) => join(root, name);
  return {
    root,
    runJson: at("run.json"),
    journal: at("journal.jsonl"),
    ledger: at("ledger.jsonl"),
    metrics: at("metrics.jsonl"),
    spans: at("spans.jsonl"),
    samples: at("samples"),
    checkpoints: checkpoints === null ? at("checkpoints") : resolve(checkpoints),
    logs: at("logs"),
    lock: at("run.lock"),
  };
}

export const manifestName = "manifest.json";
const checkpointForm = /^step-\d{7}$/;

/** The file system behind `RunStorage`. */
export function fileStorage(paths: RunPaths): RunStorage {
  const staging = (name: string) => join(paths.checkpoints, `.${name}.staging`);
  const final = (name: string) => join(paths.checkpoints, name);
  return {
    async openJournal() {
      await mkdir(paths.root, { recursive: true });
      return openLogFile(paths.journal);
    },
    async setJournalAside() {
      const taken = new Set(await readdir(paths.root));
      let at = 1;
      while (taken.has(`journal.unreadable-${at}.jsonl`)) at++;
      const aside = join(paths.root, `journal.unreadable-${at}.jsonl`);
      await rename(paths.journal, aside);
      return aside;
    },
    checkpoints: () => readCheckpoints(paths.checkpoints),
    async stage(name) {
      await rm(staging(name), { recursive: true, force: true });
      await mkdir(staging(name), { recursive: true });
      return { directory: staging(name) };
    },
    async staged(name) {
      const files: CheckpointFile[] = [];
      for (const path of await filesBelow(staging(name)))
        files.push({ path: relative(staging(name), path), bytes: (await stat(path)).size, sha256: await sha256Of(path) });
      return files.sort((a, b) => (a.path < b.path ? -1 : 1));
    },
    async commit(name, manifest) {
      const from = staging(name);
      await writeFile(join(from, manifestName), manifest);
      for (const path of await filesBelow(from)) await syncPath(path);
      for (const path of [...(await directoriesBelow(from)), from]) await syncPath(path);
      // A checkpoint of this name is one that nobody resumed from (R1): the run that reached it again went on from an older one.
      if (await exists(final(name))) {
        const old = join(paths.checkpoints, `.${name}.replaced`);
        await rm(old, { recursive: true, force: true });
        await rename(final(name), old);
        await rename(from, final(name));
        await rm(old, { recursive: true, force: true });
      } else await rename(from, final(name));
      await syncPath(paths.checkpoints);
      return { name, directory: final(name), manifest };
    },
    async remove(name) {
      // Renamed first, so that no half of a checkpoint ever bears its name.
      const gone = join(paths.checkpoints, `.${name}.removed`);
      await rename(final(name), gone);
      await rm(gone, { recursive: true, force: true });
    },
  };
}

/** Checkpoint directories with a manifest, oldest first; what is in the manifest is not looked at. */
export async function readCheckpoints(directory: string): Promise<readonly StoredCheckpoint[]> {
  const names = (await readdirOrNone(directory))
    .filter((entry) => entry.isDirectory() && checkpointForm.test(entry.name))
    .map((entry) => entry.name);
  const found: StoredCheckpoint[] = [];
  for (const name of names.sort()) {
    const at = join(directory, name);
    const manifest = await readFile(join(at, manifestName), "utf8").catch(() => null);
    if (manifest !== null) found.push({ name, directory: at, manifest });
  }
  return found;
}

/** @throws `checkpoint.invalid` naming the first file that is missing or differs (M1). */
export async function verifyFiles(directory: string, files: readonly CheckpointFile[]): Promise<void> {
  for (const file of files) {
    const path = join(directory, file.path);
    const invalid = (reason: string) => new SlimeError("checkpoint.invalid", `${path} ${reason}`, { path, reason });
    const size = await stat(path).then(
      (found) => found.size,
      () => null,
    );
    if (size === null) throw invalid("is missing");
    if (size !== file.bytes) throw invalid(`has ${size} bytes, its manifest says ${file.bytes}`);
    if ((await sha256Of(path)) !== file.sha256) throw invalid("does not match its digest");
  }
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Uint8Array);
  return hash.digest("hex");
}

async function filesBelow(directory: string): Promise<readonly string[]> {
  const out: string[] = [];
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true }))
    if (entry.isFile()) out.push(join(entry.parentPath, entry.name));
  return out;
}

async function directoriesBelow(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
}

async function readdirOrNone(directory: string): Promise<readonly Dirent[]> {
  try {
    return await readdir(directory, { withFileTypes: true });
  } catch {
    return [];
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a whole small file or nothing of it. */
export async function writeFileAtomic(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const next = `${path}.next`;
  await writeFile(next, text);
  await syncPath(next);
  await rename(next, path);
  await syncPath(dirname(path));
}

/** Makes the run directory. @returns the topmost directory that did not exist before, or null. */
export async function madeDirectory(paths: RunPaths): Promise<string | null> {
  return (await mkdir(paths.root, { recursive: true })) ?? null;
}

/** Removes what opening a run wrote, while the run has not begun: once it has a journal, nothing is touched. */
export async function removeUnbegun(paths: RunPaths): Promise<void> {
  if (await exists(paths.journal)) return;
  for (const path of [paths.ledger, paths.runJson, `${paths.runJson}.next`]) await rm(path, { force: true });
}

/** Removes `directory` and its parents up to `top`, as far as they are empty. */
export async function removeEmpty(directory: string, top: string): Promise<void> {
  for (let at = directory; ; at = dirname(at)) {
    if (
      !(await rmdir(at).then(
        () => true,
        () => false,
      )) ||
      at === top
    )
      return;
  }
}

/** The process that takes a run directory, and how to tell whether another one still lives. */
export interface RunOwner {
  readonly pid: number;
  readonly host: string;
  /** What tells this process from a later one of the same pid: its boot and start time, say. */
  readonly birth: string;
  /** Asked of processes of this host only. */
  readonly isAlive: (owner: { readonly pid: number; readonly birth: string }) => Promise<boolean>;
}

/**
 * Takes a run directory for this process (R2). @throws `state.locked` naming the process that has it, when that one lives on this host;
 * a lock of another host is respected too, since nobody here can see whether its owner lives.
 */
export async function lockRun(paths: RunPaths, owner: RunOwner): Promise<AsyncDisposable> {
  const mine = `${JSON.stringify({ pid: owner.pid, host: owner.host, birth: owner.birth })}\n`;
  for (let tries = 0; tries < 3; tries++) {
    try {
      await writeFile(paths.lock, mine, { flag: "wx" });
      return { [Symbol.asyncDispose]: () => rm(paths.lock, { force: true }) };
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) {
        await rm(paths.lock, { force: true }); // half of a lock is none
        throw error;
      }
    }
    const held = await readLock(paths.lock);
    if (held !== null && (held.host !== owner.host || (await owner.isAlive(held)))) {
      throw new SlimeError(
        "state.locked",
        `${paths.root} is in use by process ${held.pid} on ${held.host}: stop that run first, give another --run-dir, or remove ${paths.lock} if the host is gone`,
        { path: paths.root, pid: held.pid },
      );
    }
    await rm(paths.lock, { force: true });
  }
  throw new SlimeError("state.locked", `${paths.root} is being taken by another process`, { path: paths.root, pid: null });
}

/** Who has, or had when it was killed, a run directory; null: nobody. */
export type RunHolder = Omit<RunOwner, "isAlive">;

/** Reads a run's lock; a torn one counts as none. */
export async function readLock(path: string): Promise<RunHolder | null> {
  try {
    const { pid, host, birth } = JSON.parse(await readFile(path, "utf8")) as Partial<RunOwner>;
    return typeof pid === "number" && typeof host === "string" && typeof birth === "string" ? { pid, host, birth } : null;
  } catch {
    return null;
  }
}
