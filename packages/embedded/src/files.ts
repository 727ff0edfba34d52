import { copyFile, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SlimeError } from "@slime/core";

/**
 * Replaces a file whole or not at all: written beside it, flushed, renamed, and the directory flushed.
 * @param data text, bytes, or parts that are written one after the other.
 * @throws `disk.full` when there is no room; the half-written file is gone then.
 */
export async function writeFileAtomic(path: string, data: Uint8Array | string | readonly Uint8Array[]): Promise<void> {
  const scratch = `${path}.tmp`;
  const parts = typeof data === "string" || data instanceof Uint8Array ? [data] : data;
  try {
    const file = await open(scratch, "w", 0o644);
    try {
      for (const part of parts) await file.writeFile(part);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(scratch, path);
  } catch (error) {
    await rm(scratch, { force: true });
    if (codeOf(error) !== "ENOSPC") throw error;
    const needed = parts.reduce((sum, part) => sum + Buffer.byteLength(part), 0);
    throw new SlimeError(
      "disk.full",
      `no room for ${needed} bytes at ${path}: free some space there or choose another directory`,
      { path, needed },
      { cause: error },
    );
  }
  await syncDirectory(dirname(path));
}

/**
 * Makes `path` a directory with what `fill` puts into it, or leaves it as it was: filled under another name, then renamed into place.
 * An existing empty directory is replaced. @throws `conflict` when it exists and holds something.
 */
export async function writeDirectoryAtomic(path: string, fill: (directory: string) => Promise<void>): Promise<void> {
  const scratch = `${path}.tmp`;
  await rm(scratch, { recursive: true, force: true });
  await mkdir(scratch, { recursive: true });
  try {
    await fill(scratch);
    await syncDirectory(scratch);
    await rename(scratch, path);
  } catch (error) {
    await rm(scratch, { recursive: true, force: true });
    if (codeOf(error) !== "ENOTEMPTY" && codeOf(error) !== "EEXIST") throw error;
    throw new SlimeError(
      "conflict",
      `${path} already exists and is not empty: choose another directory or remove it`,
      { kind: "directory", id: path },
      { cause: error },
    );
  }
  await syncDirectory(dirname(path));
}

/** Reads a file. @throws `file.missing`, saying what it was wanted for. */
export async function readWanted(path: string, wanted: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw missingFile(cause, path, wanted);
  }
}

/** What to throw for a file that could not be opened: `file.missing` where it is not there, else the error itself. */
export function missingFile(cause: unknown, path: string, wanted: string): unknown {
  if (codeOf(cause) !== "ENOENT" && codeOf(cause) !== "ENOTDIR") return cause;
  return new SlimeError("file.missing", `${path} does not exist; it is needed as ${wanted}`, { path, wanted }, { cause });
}

/** Parses JSON from a file. @throws `checkpoint.invalid` with the parser's reason. */
export async function readJson(path: string, wanted: string): Promise<unknown> {
  const text = (await readWanted(path, wanted)).toString("utf8");
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = `not JSON: ${cause instanceof Error ? cause.message : String(cause)}`;
    throw new SlimeError("checkpoint.invalid", `${path}: ${reason}`, { path, reason }, { cause });
  }
}

/** Copies the files of `from` that `wanted` accepts, unchanged. */
export async function copyFiles(from: string, to: string, wanted: (name: string) => boolean): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    if (entry.isFile() && wanted(entry.name)) await copyFile(join(from, entry.name), join(to, entry.name));
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
