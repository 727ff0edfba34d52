import { crc32, deflateRawSync } from "node:zlib";

export interface ZipEntry {
  readonly name: string;
  readonly content?: string | Buffer;
  /** Unix mode with type bits; default: a regular file. */
  readonly mode?: number;
  readonly stored?: boolean;
  /** What the directory claims, where it lies. */
  readonly claimedBytes?: number;
  readonly claimedCrc?: number;
}

/** A ZIP archive of any entries, hostile ones too. */
export function zipOf(entries: readonly ZipEntry[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const { name, content = "", mode = 0o100644, stored = false, claimedBytes, claimedCrc } of entries) {
    const raw = Buffer.from(content);
    const data = stored ? raw : deflateRawSync(raw);
    const nameBytes = Buffer.from(name);
    const fields = (start: number, signature: number) => {
      const header = Buffer.alloc(start + 26);
      header.writeUInt32LE(signature, 0);
      header.writeUInt16LE(20, start);
      header.writeUInt16LE(stored ? 0 : 8, start + 4);
      header.writeUInt32LE(claimedCrc ?? crc32(raw), start + 10);
      header.writeUInt32LE(data.length, start + 14);
      header.writeUInt32LE(claimedBytes ?? raw.length, start + 18);
      header.writeUInt16LE(nameBytes.length, start + 22);
      return header;
    };
    const local = fields(4, 0x04034b50);
    const central = Buffer.concat([fields(6, 0x02014b50), Buffer.alloc(14)]);
    central.writeUInt16LE(3 << 8, 4);
    central.writeUInt32LE((mode << 16) >>> 0, 38);
    central.writeUInt32LE(at, 42);
    parts.push(local, nameBytes, data);
    directory.push(central, nameBytes);
    at += local.length + nameBytes.length + data.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, central, end]);
}
