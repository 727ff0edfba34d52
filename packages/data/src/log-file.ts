import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { SlimeError } from "@slime/core";

/** Bytes of an append-only file. Nothing is durable before `sync` resolves. */
export interface LogFile {
  /** Names the file in errors. */
  readonly path: string;
  readonly read: () => Promise<Uint8Array>;
  readonly append: (bytes: Uint8Array) => Promise<void>;
  readonly truncate: (length: number) => Promise<void>;
  readonly sync: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/** Largest log that is read into memory. */
export const logFileBytesMax = 1024 * 1024 * 1024;

/** Opens or creates; a created file's directory entry is durable too. @throws SlimeError `file.missing` when its directory does not exist. */
export async function openLogFile(path: string): Promise<LogFile> {
  const handle = await opened(path);
  let length = (await handle.stat()).size;
  if (length === 0) await syncDirectory(dirname(path));
  return {
    path,
    async read() {
      if (length > logFileBytesMax)
        throw new SlimeError(
          "state.damaged",
          `${path} has ${length} bytes, more than the ${logFileBytesMax} that are read (logFileBytesMax)`,
          { path, where: "length" },
        );
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length; ) {
        const { bytesRead } = await handle.read(bytes, at, length - at, at);
        if (bytesRead === 0)
          throw new SlimeError("state.damaged", `${path} became shorter while it was read`, { path, where: `byte ${at}` });
        at += bytesRead;
      }
      return bytes;
    },
    async append(bytes) {
      let at = 0;
      while (at < bytes.length) {
        const { bytesWritten } = await handle.write(bytes, at, bytes.length - at, length + at);
        at += bytesWritten;
      }
      length += bytes.length;
    },
    async truncate(to) {
      await handle.truncate(to);
      length = to;
    },
    sync: () => handle.datasync(),
    close: () => handle.close(),
  };
}

async function opened(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDWR | constants.O_CREAT, 0o644);
  } catch (error) {
    throw new SlimeError(
      "file.missing",
      `cannot open or create ${path}: make its directory, and let this user write there`,
      { path, wanted: "a file to append records to" },
      { cause: error },
    );
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
