/**
 * Follows append-only files by byte offset. Several files in turn (a driver's attempts) read as one stream.
 * Invariants: T4 a chunk's offset plus its length is the next chunk's offset, so a reader that stops anywhere resumes without loss or repeat;
 * T5 at most `chunkBytesMax` bytes are in memory for one reader, however fast the file grows.
 */
import { type FileHandle, open } from "node:fs/promises";
import { type Clock, SlimeError, sleep } from "@slime/core";

export interface LogChunk {
  /** Of the first byte, counted over all files. */
  readonly offset: number;
  readonly bytes: Buffer;
}

export interface LogSource {
  /** The files so far, oldest first; a file that has a successor grows no more. May be empty while nothing has started. */
  readonly files: () => readonly string[];
  /** True once the last file grows no more; what is there then is still read. */
  readonly ended: () => boolean;
}

export interface FollowOptions {
  readonly clock: Clock;
  /** First byte wanted; default 0. */
  readonly offset?: number;
  readonly signal?: AbortSignal;
  readonly chunkBytesMax?: number;
  /** How often a file that has not grown is looked at. */
  readonly pollMs?: number;
}

export const logFollowDefaults = { chunkBytesMax: 65_536, pollMs: 100 } as const;

/** Chunks from `offset` on, waiting for more until the source has ended. Files that do not exist yet count as empty. */
export async function* followLog(source: LogSource, options: FollowOptions): AsyncGenerator<LogChunk> {
  const { clock, signal, chunkBytesMax = logFollowDefaults.chunkBytesMax, pollMs = logFollowDefaults.pollMs } = options;
  let position = options.offset ?? 0;
  for (;;) {
    signal?.throwIfAborted();
    const ended = source.ended(); // asked before reading: what was written before the end is read after it
    const chunk = await readLog(source.files(), position, chunkBytesMax);
    if (chunk.length > 0) {
      yield { offset: position, bytes: chunk };
      position += chunk.length;
    } else if (ended) {
      return;
    } else {
      await sleep(clock, pollMs, signal);
    }
  }
}

/** At most `bytesMax` bytes from `offset` of the files read as one; empty at the end. */
export async function readLog(files: readonly string[], offset: number, bytesMax: number): Promise<Buffer> {
  let start = offset;
  for (const path of files) {
    const handle = await openIfThere(path);
    if (handle === null) continue;
    try {
      const { size } = await handle.stat();
      if (start < size) {
        const buffer = Buffer.allocUnsafe(Math.min(bytesMax, size - start));
        const { bytesRead } = await handle.read(buffer, 0, buffer.length, start);
        return buffer.subarray(0, bytesRead);
      }
      start -= size;
    } finally {
      await handle.close();
    }
  }
  return Buffer.alloc(0);
}

/** Bytes of the files together; those that are missing count as empty. */
export async function logSize(files: readonly string[]): Promise<number> {
  let size = 0;
  for (const path of files) {
    const handle = await openIfThere(path);
    if (handle === null) continue;
    size += (await handle.stat()).size;
    await handle.close();
  }
  return size;
}

async function openIfThere(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, "r");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return null;
    throw new SlimeError(
      "file.missing",
      `the log ${path} cannot be read: ${code ?? String(error)}`,
      { path, wanted: "a log file" },
      { cause: error },
    );
  }
}
