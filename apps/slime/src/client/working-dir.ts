/**
 * A working directory as one ZIP archive: regular files inside the root only, sorted, with fixed times, so that equal content has an equal name.
 * Links are left out, wherever they point.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { crc32, deflateRawSync } from "node:zlib";
import { SlimeError } from "@slime/core";

export interface Snapshot {
  /** `<sha256>.zip`. */
  readonly name: string;
  readonly bytes: Buffer;
  readonly files: number;
  /** Links, sockets and devices that were left out, at most ten named. */
  readonly skipped: readonly string[];
}

/** Never part of a snapshot. */
export const excludedNames: ReadonlySet<string> = new Set([".git", "node_modules", "__pycache__", ".venv"]);
export const snapshotLimits = { filesMax: 20_000, bytesMax: 256 * 1_048_576 } as const;

/** @throws SlimeError `file.missing`, `wire.limit` naming the largest files. */
export async function snapshotDirectory(directory: string): Promise<Snapshot> {
  const root = resolve(directory);
  if (!(await stat(root).catch(() => null))?.isDirectory())
    throw new SlimeError("file.missing", `--working-dir ${directory} is no directory`, { path: root, wanted: "a directory" });
  const skipped: string[] = [];
  const files = (await walk(root, "", skipped)).sort((a, b) => (a < b ? -1 : 1));
  if (files.length > snapshotLimits.filesMax)
    throw new SlimeError(
      "wire.limit",
      `${directory} has ${files.length} files, at most ${snapshotLimits.filesMax} are taken: leave data out, or run in place without --working-dir`,
      { what: "files of the working directory", value: files.length, max: snapshotLimits.filesMax },
    );
  const parts: Buffer[] = [];
  const entries: Buffer[] = [];
  const sizes: { readonly name: string; readonly bytes: number }[] = [];
  let at = 0;
  for (const name of files) {
    const path = join(root, name);
    const [content, { mode }] = [await readFile(path), await stat(path)];
    sizes.push({ name, bytes: content.length });
    const { local, central } = zipEntry(name, content, mode, at);
    parts.push(local);
    entries.push(central);
    at += local.length;
    if (at > snapshotLimits.bytesMax) throw tooLarge(directory, sizes);
  }
  const directoryBytes = Buffer.concat(entries);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(directoryBytes.length, 12);
  end.writeUInt32LE(at, 16);
  const bytes = Buffer.concat([...parts, directoryBytes, end]);
  return { name: `${createHash("sha256").update(bytes).digest("hex")}.zip`, bytes, files: files.length, skipped: skipped.slice(0, 10) };
}

function tooLarge(directory: string, sizes: readonly { readonly name: string; readonly bytes: number }[]): SlimeError {
  const largest = [...sizes]
    .sort((a, b) => b.bytes - a.bytes)
    .slice(0, 3)
    .map(({ name, bytes }) => `${name} (${Math.round(bytes / 1_048_576)} MiB)`);
  return new SlimeError(
    "wire.limit",
    `${directory} is more than ${snapshotLimits.bytesMax / 1_048_576} MiB compressed; largest: ${largest.join(", ")}. Leave data out, or run in place without --working-dir`,
    { what: "bytes of the working directory", value: snapshotLimits.bytesMax + 1, max: snapshotLimits.bytesMax },
  );
}

async function walk(root: string, below: string, skipped: string[]): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(join(root, below), { withFileTypes: true })) {
    const name = below === "" ? entry.name : `${below}/${entry.name}`;
    if (excludedNames.has(entry.name)) continue;
    if (entry.isDirectory()) found.push(...(await walk(root, name, skipped)));
    else if (entry.isFile()) found.push(name);
    else skipped.push(name);
  }
  return found;
}

/** The file's own part of the archive, and its line in the directory at the end. */
function zipEntry(name: string, content: Buffer, mode: number, at: number): { readonly local: Buffer; readonly central: Buffer } {
  const packed = deflateRawSync(content, { level: 6 });
  const deflated = packed.length < content.length;
  const data = deflated ? packed : content;
  const nameBytes = Buffer.from(name, "utf8");
  const shared = Buffer.alloc(26);
  shared.writeUInt16LE(20, 0);
  shared.writeUInt16LE(0x0800, 2); // names are UTF-8
  shared.writeUInt16LE(deflated ? 8 : 0, 4);
  shared.writeUInt16LE(0x21, 8); // 1980-01-01, the format's first day
  shared.writeUInt32LE(crc32(content), 10);
  shared.writeUInt32LE(data.length, 14);
  shared.writeUInt32LE(content.length, 18);
  shared.writeUInt16LE(nameBytes.length, 22);
  const signature = Buffer.alloc(4);
  signature.writeUInt32LE(0x04034b50);
  const head = Buffer.alloc(6);
  head.writeUInt32LE(0x02014b50);
  head.writeUInt16LE((3 << 8) | 20, 4); // made on Unix: modes mean something
  const tail = Buffer.alloc(14);
  tail.writeUInt32LE((((mode & 0o111) !== 0 ? 0o100755 : 0o100644) << 16) >>> 0, 6);
  tail.writeUInt32LE(at, 10);
  return { local: Buffer.concat([signature, shared, nameBytes, data]), central: Buffer.concat([head, shared, tail, nameBytes]) };
}
