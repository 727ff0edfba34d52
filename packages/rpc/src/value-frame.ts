import type { CodecHooks } from "./codec-hooks.js";
import { frameParts, headerBytesOf, readPrefix } from "./frame.js";
import { type FrameLimits, storedLimits } from "./limits.js";
import { limit } from "./msgpack-reader.js";
import { MsgpackWriter } from "./msgpack-writer.js";
import { ValueReader } from "./value-reader.js";
import { ValueWriter } from "./value-writer.js";

/**
 * One value as a frame of its own, in parts to be written one after another: what the object store keeps, and constructor arguments.
 * Large arrays in it are views of the caller's memory, not copies. Throws `codec.refused` or `wire.limit`.
 */
export function encodeValueFrame(value: unknown, hooks?: CodecHooks, limits: FrameLimits = storedLimits): readonly Uint8Array[] {
  const writer = new ValueWriter(new MsgpackWriter(256), hooks, limits);
  writer.value(value);
  return frameParts(writer.out.buffer.subarray(0, writer.out.position), writer.segments, 0, 1);
}

/** As `encodeValueFrame`, joined. */
export function encodeValue(value: unknown, hooks?: CodecHooks, limits: FrameLimits = storedLimits): Uint8Array {
  return Buffer.concat(encodeValueFrame(value, hooks, limits));
}

/**
 * The value of a frame made by `encodeValueFrame`. Its arrays are views of `bytes` where that is aligned, copies elsewhere.
 * Throws `codec.refused`, `wire.limit`, `peer.incompatible`, or what a hook threw.
 */
export function decodeValueFrame(bytes: Uint8Array, hooks?: CodecHooks, limits: FrameLimits = storedLimits): unknown {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const total = buffer.length;
  if (total > limits.frameBytesMax) throw limit("bytes of a frame", total, limits.frameBytesMax);
  const headerBytes = headerBytesOf(buffer, 0, total);
  let table: readonly number[] = [];
  const reader: ValueReader = new ValueReader(
    buffer,
    8,
    8 + headerBytes,
    (index: number): Uint8Array => segmentOf(buffer, 0, table, index, 0, reader),
    hooks,
    limits,
  );
  const prefix = readPrefix(reader, headerBytes, total, limits);
  table = prefix.segments;
  const claimed = buffer.readUInt32LE(0);
  if (prefix.messages !== 1 || (claimed !== 0 && claimed !== total)) throw reader.refused("this is not the frame of one value");
  const value = reader.value();
  if (!reader.atEnd) throw reader.refused("bytes follow the value");
  if (reader.hookError !== undefined) throw reader.hookError;
  return value;
}

/** Segment `index` of the frame at `start`: a view when it is at least `viewBytesMin` long and aligned, otherwise a copy. */
export function segmentOf(
  buffer: Buffer,
  start: number,
  table: readonly number[],
  index: number,
  viewBytesMin: number,
  reader: ValueReader,
): Uint8Array {
  const offset = table[index * 2];
  const bytes = table[index * 2 + 1];
  if (offset === undefined || bytes === undefined) throw reader.refused(`there is no segment ${index}`);
  const at = buffer.byteOffset + start + offset;
  if (bytes >= viewBytesMin && at % 8 === 0) return new Uint8Array(buffer.buffer, at, bytes);
  const copy = new Uint8Array(bytes);
  copy.set(buffer.subarray(start + offset, start + offset + bytes));
  return copy;
}
