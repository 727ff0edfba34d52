/**
 * The frame: `[u32le total][u32le headerLen][header][pad to 64][segment 0][pad to 64][segment 1]…`.
 * `total` counts the whole frame from its first byte; segments begin at multiples of 64 from there, so that a reader whose
 * buffer is aligned gets aligned arrays without a copy; nothing follows the last segment.
 * The header is MessagePack: `[protocolVersion, headEpoch, [bytes of each segment…], [message…]]`.
 * For frames past 4 GiB (stored objects only) `total` is 0: the length is that of what holds the frame.
 */
import { SlimeError } from "@slime/core";
import type { FrameLimits } from "./limits.js";
import { limit, type MsgpackReader } from "./msgpack-reader.js";
import { MsgpackWriter } from "./msgpack-writer.js";

/** Raised when a frame's or message's meaning changes; peers of another version do not talk. */
export const protocolVersion = 1;

/** Where segments may begin; a cache line, and more than any element type needs. */
export const segmentAlign = 64;

/** Room kept before the messages for the frame's prefix when it has no segments: 8 + 1 + 1 + 9 + 1 + 5 bytes at most. */
export const prefixRoom = 32;

/** The first place at or after `offset` where a segment may begin. */
export function aligned(offset: number): number {
  return Math.ceil(offset / segmentAlign) * segmentAlign;
}

/** Writes the prefix of a frame without segments in front of its messages, which lie at `prefixRoom` … `end`. Returns where the frame begins. */
export function sealPlain(buffer: Buffer, end: number, epoch: number, messages: number): number {
  const prefix = prefixBytes(epoch, [], messages);
  const start = prefixRoom - prefix.length - 8;
  buffer.writeUInt32LE(end - start, start);
  buffer.writeUInt32LE(end - start - 8, start + 4);
  buffer.set(prefix, start + 8);
  return start;
}

/** A frame in parts, to be written one after another: its head (with padding), then segments and padding in turn. Nothing is copied but the head. */
export function frameParts(body: Uint8Array, segments: readonly Uint8Array[], epoch: number, messages: number): readonly Uint8Array[] {
  const prefix = prefixBytes(
    epoch,
    segments.map((segment) => segment.byteLength),
    messages,
  );
  const headerBytes = prefix.length + body.byteLength;
  let total = 8 + headerBytes;
  for (const segment of segments) total = aligned(total) + segment.byteLength;
  const head = Buffer.alloc(segments.length === 0 ? 8 + headerBytes : aligned(8 + headerBytes));
  head.writeUInt32LE(total > 0xffff_ffff ? 0 : total, 0);
  head.writeUInt32LE(headerBytes, 4);
  head.set(prefix, 8);
  head.set(body, 8 + prefix.length);
  const parts: Uint8Array[] = [head];
  for (const [i, segment] of segments.entries()) {
    parts.push(segment);
    const pad = aligned(segment.byteLength) - segment.byteLength;
    if (pad > 0 && i < segments.length - 1) parts.push(zeros.subarray(0, pad));
  }
  return parts;
}

const zeros = new Uint8Array(segmentAlign);

/** The plain prefix hardly ever changes: a peer's turns have the same epoch and few different counts. */
let lastPlain: { readonly epoch: number; readonly messages: number; readonly bytes: Uint8Array } = {
  epoch: -1,
  messages: -1,
  bytes: new Uint8Array(0),
};

function prefixBytes(epoch: number, segmentBytes: readonly number[], messages: number): Uint8Array {
  if (segmentBytes.length === 0 && lastPlain.epoch === epoch && lastPlain.messages === messages) return lastPlain.bytes;
  const out = new MsgpackWriter(32 + segmentBytes.length * 9);
  out.array(4);
  out.number(protocolVersion);
  out.number(epoch);
  out.array(segmentBytes.length);
  for (const bytes of segmentBytes) out.number(bytes);
  out.array(messages);
  const bytes = out.buffer.subarray(0, out.position);
  if (segmentBytes.length === 0) lastPlain = { epoch, messages, bytes };
  return bytes;
}

/** What a frame's prefix says; the reader it came from stands at the first message. */
export interface FramePrefix {
  readonly epoch: number;
  readonly messages: number;
  /** Where each segment begins, from the frame's first byte, and its length: `[start0, bytes0, start1, …]`. */
  readonly segments: readonly number[];
}

const noSegments: readonly number[] = [];

/** Length of the header, checked against the frame's. */
export function headerBytesOf(buffer: Buffer, start: number, total: number): number {
  const bytes = total < 8 ? -1 : buffer.readUInt32LE(start + 4);
  if (bytes < 0 || bytes > total - 8)
    throw new SlimeError(
      "codec.refused",
      `a frame of ${total} bytes claims a header of ${bytes}; the other end does not speak slime's frames`,
      { where: "frame", reason: "header length" },
    );
  return bytes;
}

/**
 * Reads the prefix. @param total bytes of the whole frame.
 * @throws `peer.incompatible` for another protocol version, before anything else is looked at.
 */
export function readPrefix(reader: MsgpackReader, headerBytes: number, total: number, limits: FrameLimits): FramePrefix {
  if (reader.arrayCount("a frame's header") !== 4) throw reader.refused("a frame's header is not [version, epoch, segments, messages]");
  const version = reader.count("the protocol version");
  if (version !== protocolVersion)
    throw new SlimeError(
      "peer.incompatible",
      `the other end speaks protocol ${version}, this one ${protocolVersion}; run the same version of slime on both`,
      { ours: String(protocolVersion), theirs: String(version) },
    );
  const epoch = reader.count("the head epoch");
  const count = reader.arrayCount("the segment table");
  if (count > limits.segmentsMax) throw limit("segments of a frame", count, limits.segmentsMax);
  const segments = count === 0 ? noSegments : segmentTable(reader, count, 8 + headerBytes, total);
  const messages = reader.arrayCount("the messages");
  if (messages > limits.messagesMax) throw limit("messages of a frame", messages, limits.messagesMax);
  return { epoch, messages, segments };
}

function segmentTable(reader: MsgpackReader, count: number, headerEnd: number, total: number): readonly number[] {
  const table: number[] = [];
  let end = headerEnd;
  for (let i = 0; i < count; i++) {
    const start = aligned(end);
    const bytes = reader.count("a segment's length");
    end = start + bytes;
    if (end > total) throw reader.refused(`segment ${i} ends ${end - total} bytes past its frame`);
    table.push(start, bytes);
  }
  return table;
}
