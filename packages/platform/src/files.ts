import { randomBytes } from "node:crypto";
import { appendFile, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf, translateIoError } from "./io-errors.js";

/**
 * Writes a file so that a reader, at any moment and after any crash, sees the old content or the new, never a part:
 * a temporary file beside it, fsync, rename, fsync of the directory. Nothing half-written stays behind on failure.
 * @throws SlimeError `disk.full`; otherwise the system's error.
 */
export async function writeFileAtomic(path: string, content: string | Uint8Array, options: { readonly mode?: number } = {}): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    const file = await open(temporary, "wx", options.mode ?? 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    throw translateIoError(error, path, content.length);
  }
}

/** Makes a rename or a new name durable. Some systems refuse to sync a directory: there it is as durable as it gets. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } catch (error) {
    if (!["EINVAL", "EPERM", "EISDIR", "ENOTSUP"].includes(errnoOf(error))) throw error;
  } finally {
    await directory.close();
  }
}

/** The file's text, or null when there is none. */
export async function readTextIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return null;
    throw error;
  }
}

/** A directory for us alone (0700), with its parents. @throws SlimeError `disk.full`; otherwise the system's error. */
export async function privateDirectory(path: string): Promise<string> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw translateIoError(error, path);
  }
  return path;
}

/** Appends one line to a file. @throws SlimeError `disk.full`; otherwise the system's error. */
export async function appendLine(path: string, line: string): Promise<void> {
  try {
    await appendFile(path, `${line}\n`, { mode: 0o600 });
  } catch (error) {
    throw translateIoError(error, path, line.length + 1);
  }
}

/** How much of a file's end is read for its last lines. */
const tailBytesMax = 64 * 1024;

/** The last lines of a log, newest last, empty ones at its end left out; [] when there is no such file. */
export async function lastLines(path: string, linesMax = 20): Promise<readonly string[]> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, "r");
  } catch {
    return [];
  }
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - tailBytesMax);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
    const lines = buffer.subarray(0, bytesRead).toString("utf8").split("\n");
    if (start > 0) lines.shift(); // begins in the middle
    while (lines.at(-1)?.trim() === "") lines.pop();
    return lines.slice(-linesMax);
  } finally {
    await file.close();
  }
}
