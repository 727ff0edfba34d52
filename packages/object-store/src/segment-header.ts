/**
 * The first 64 bytes of a segment file; the frame of the value follows. Little-endian:
 * `[4] "SLOB" [u32] format 1 [u64] frame bytes [u64] generation [32] object id, padded with zeros [u32] 1 when sealed [4] 0`.
 * The Python host reads and writes the same.
 */
import type { ObjectDescriptor } from "@slime/rpc";

export const headerBytes = 64;
const magic = 0x424f_4c53;
const format = 1;
const idOffset = 24;
const idBytesMax = 32;

export interface SegmentHeader {
  readonly objectId: string;
  readonly bytes: number;
  /** How often the segment has been used, from 1. */
  readonly generation: number;
}

/** The header that makes a segment an object, written last: readers see the whole value or none. The id is at most 32 Latin-1 characters. */
export function sealedHeader(header: SegmentHeader): Buffer {
  const out = Buffer.alloc(headerBytes);
  out.writeUInt32LE(magic, 0);
  out.writeUInt32LE(format, 4);
  out.writeBigUInt64LE(BigInt(header.bytes), 8);
  out.writeBigUInt64LE(BigInt(header.generation), 16);
  out.write(header.objectId, idOffset, idBytesMax, "latin1");
  out.writeUInt32LE(1, 56);
  return out;
}

/** What a segment holds while it is free or being written: nothing that a reader would take for an object. */
export function openHeader(generation: number): Buffer {
  const out = Buffer.alloc(headerBytes);
  out.writeUInt32LE(magic, 0);
  out.writeUInt32LE(format, 4);
  out.writeBigUInt64LE(BigInt(generation), 16);
  return out;
}

/** How often the segment has been used; 0 when it bears no header of ours. */
export function generationOf(header: Buffer): number {
  return header.readUInt32LE(0) === magic ? Number(header.readBigUInt64LE(16)) : 0;
}

/** True when the segment is sealed and holds exactly the object described. */
export function holds(header: Buffer, object: ObjectDescriptor): boolean {
  const end = header.indexOf(0, idOffset);
  return (
    header.readUInt32LE(0) === magic &&
    header.readUInt32LE(4) === format &&
    header.readUInt32LE(56) === 1 &&
    header.readBigUInt64LE(8) === BigInt(object.bytes) &&
    header.toString("latin1", idOffset, Math.min(end, idOffset + idBytesMax)) === object.objectId
  );
}
