/**
 * Reads ZIP archives of job packages, as little of the format as they need: stored and deflated entries, no encryption, no ZIP64, no spanning.
 * Invariants: Z1 nothing is written outside the root: names are relative, without `..`, and only regular files and directories are taken;
 * Z2 at most `unpackedBytesMax` bytes and `entriesMax` entries, counted as they are written, whatever the archive claims; Z3 every file's checksum is compared;
 * Z4 an archive is unpacked whole or not at all.
 */
import { type FileHandle, mkdir, open, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { crc32, inflateRaw } from "node:zlib";
import { SlimeError } from "@slime/core";

export const zipLimits = {
  entriesMax: 100_000,
  unpackedBytesMax: 2 * 1024 ** 3,
  nameBytesMax: 4_096,
  directoryBytesMax: 64 * 1024 ** 2,
} as const;

interface Entry {
  readonly name: string;
  readonly directory: boolean;
  readonly executable: boolean;
  readonly method: number;
  readonly crc: number;
  readonly compressedBytes: number;
  readonly bytes: number;
  readonly headerAt: number;
}

const inflate = promisify<Buffer, { readonly maxOutputLength: number }, Buffer>(inflateRaw);

/**
 * Unpacks `file` into the new directory `into`. @throws SlimeError `data.invalid` naming the entry and the rule, `wire.limit`, `disk.full`.
 */
export async function unpackZip(file: string, into: string): Promise<void> {
  const partial = `${into}.partial`;
  await rm(partial, { recursive: true, force: true });
  const archive = await open(file, "r");
  try {
    await mkdir(partial, { recursive: true, mode: 0o700 });
    let left: number = zipLimits.unpackedBytesMax;
    for (const entry of await readDirectory(archive, file)) {
      const target = join(partial, ...entry.name.split("/"));
      if (entry.directory) {
        await mkdir(target, { recursive: true });
        continue;
      }
      if (entry.bytes > left)
        throw new SlimeError(
          "wire.limit",
          `${file} unpacks to more than ${zipLimits.unpackedBytesMax} bytes: leave data out of the working directory`,
          { what: "unpacked bytes", value: zipLimits.unpackedBytesMax - left + entry.bytes, max: zipLimits.unpackedBytesMax },
        );
      const content = await readEntry(archive, file, entry);
      left -= content.length;
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, content, { flag: "wx", mode: entry.executable ? 0o755 : 0o644 });
    }
    await rename(partial, into); // Z4
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw translate(error, file, into);
  } finally {
    await archive.close();
  }
}

function translate(error: unknown, file: string, into: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "ENOSPC")
    return new SlimeError(
      "disk.full",
      `no space left to unpack ${file} into ${into}; free some and submit again`,
      { path: into, needed: null },
      { cause: error },
    );
  if (code === "EEXIST" || code === "ENOTDIR" || code === "EISDIR" || code === "ENAMETOOLONG")
    return invalid(file, `two entries collide or a name is too long (${code})`, error);
  return error;
}

/** The entries as the central directory lists them, each checked (Z1, Z2). */
async function readDirectory(archive: FileHandle, file: string): Promise<readonly Entry[]> {
  const { size } = await archive.stat();
  const tailBytes = Math.min(size, 65_557);
  const tail = await readAt(archive, size - tailBytes, tailBytes, file);
  const endAt = tail.lastIndexOf(Buffer.from([0x50, 0x4b, 5, 6]));
  if (endAt < 0 || tail.length - endAt < 22) throw invalid(file, "it has no end record: is it a ZIP archive?");
  const count = tail.readUInt16LE(endAt + 10);
  const bytes = tail.readUInt32LE(endAt + 12);
  const at = tail.readUInt32LE(endAt + 16);
  if (count === 0xffff || at === 0xffffffff) throw invalid(file, "ZIP64 archives are not read: leave data out of the working directory");
  if (count > zipLimits.entriesMax || bytes > zipLimits.directoryBytesMax)
    throw new SlimeError("wire.limit", `${file} has ${count} entries, at most ${zipLimits.entriesMax}`, {
      what: "entries",
      value: count,
      max: zipLimits.entriesMax,
    });
  const directory = await readAt(archive, at, bytes, file);
  const entries: Entry[] = [];
  let from = 0;
  for (let i = 0; i < count; i++) {
    if (directory.length - from < 46 || directory.readUInt32LE(from) !== 0x02014b50)
      throw invalid(file, `its directory breaks off at entry ${i}`);
    const nameBytes = directory.readUInt16LE(from + 28);
    const name = directory.toString("utf8", from + 46, from + 46 + nameBytes);
    const mode = directory.readUInt32LE(from + 38) >>> 16;
    const flags = directory.readUInt16LE(from + 8);
    entries.push({
      name: checkedName(name, nameBytes, mode, flags, file),
      directory: name.endsWith("/"),
      executable: (mode & 0o111) !== 0,
      method: directory.readUInt16LE(from + 10),
      crc: directory.readUInt32LE(from + 16),
      compressedBytes: directory.readUInt32LE(from + 20),
      bytes: directory.readUInt32LE(from + 24),
      headerAt: directory.readUInt32LE(from + 42),
    });
    from += 46 + nameBytes + directory.readUInt16LE(from + 30) + directory.readUInt16LE(from + 32);
  }
  return entries;
}

/** Z1: the name, relative and inside the root, without its trailing slash. */
function checkedName(name: string, nameBytes: number, mode: number, flags: number, file: string): string {
  const shown = JSON.stringify(name.slice(0, 200));
  if (nameBytes === 0 || nameBytes > zipLimits.nameBytesMax)
    throw invalid(file, `an entry's name has ${nameBytes} bytes, 1 to ${zipLimits.nameBytesMax} are read`);
  const bare = name.endsWith("/") ? name.slice(0, -1) : name;
  const segments = bare.split("/");
  if (name.includes("\\") || name.includes("\0") || segments.some((segment) => segment === "" || segment === "." || segment === ".."))
    throw invalid(file, `${shown} leads outside the root`);
  const type = mode & 0o170000;
  if (type !== 0 && type !== 0o100000 && type !== 0o040000)
    throw invalid(file, `${shown} is neither a regular file nor a directory; links and devices are not taken`);
  if ((flags & 1) !== 0) throw invalid(file, `${shown} is encrypted`);
  return bare;
}

async function readEntry(archive: FileHandle, file: string, entry: Entry): Promise<Buffer> {
  const header = await readAt(archive, entry.headerAt, 30, file);
  if (header.readUInt32LE(0) !== 0x04034b50) throw invalid(file, `${entry.name} has no header`);
  const dataAt = entry.headerAt + 30 + header.readUInt16LE(26) + header.readUInt16LE(28);
  const raw = await readAt(archive, dataAt, entry.compressedBytes, file);
  const content = await unpacked(raw, entry, file);
  if (content.length !== entry.bytes || crc32(content) !== entry.crc)
    throw invalid(file, `${entry.name} is damaged: its length or checksum is not what the archive says`); // Z3
  return content;
}

async function unpacked(raw: Buffer, entry: Entry, file: string): Promise<Buffer> {
  if (entry.method === 0) return raw;
  if (entry.method !== 8) throw invalid(file, `${entry.name} is packed by method ${entry.method}; stored and deflated files are read`);
  try {
    return await inflate(raw, { maxOutputLength: Math.max(1, entry.bytes) });
  } catch (error) {
    throw invalid(file, `${entry.name} is damaged or larger than it says`, error);
  }
}

async function readAt(archive: FileHandle, at: number, bytes: number, file: string): Promise<Buffer> {
  // Checked before anything is allocated: what the archive claims may be any number.
  if (at < 0 || bytes < 0 || at + bytes > (await archive.stat()).size) throw invalid(file, "it points beyond its end");
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await archive.read(buffer, 0, bytes, at);
  if (bytesRead !== bytes) throw invalid(file, "it is cut short");
  return buffer;
}

function invalid(file: string, reason: string, cause?: unknown): SlimeError {
  return new SlimeError("data.invalid", `the package ${file} was refused: ${reason}`, { file, issues: [reason] }, { cause });
}
