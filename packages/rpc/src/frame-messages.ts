import type { CodecHooks } from "./codec-hooks.js";
import { type MessageSink, readMessage } from "./envelope.js";
import { headerBytesOf, readPrefix } from "./frame.js";
import type { FrameLimits } from "./limits.js";
import { segmentOf } from "./value-frame.js";
import { ValueReader } from "./value-reader.js";

/** Segments from this size on are handed out as views of their frame; shorter ones are copied so that they do not hold it. */
const viewBytesMin = 64 * 1024;

/** Receives a frame's head epoch, then its messages; told no more of a frame once it has ended. */
export interface FrameSink extends MessageSink {
  readonly onFrame: (epoch: number) => void;
  readonly ended: boolean;
}

/**
 * Reads one frame, `total` bytes of `buffer` from `start`, and hands its messages on in their order. Values may be views of the buffer when it is `owned`.
 * @returns false when the sink ended on the way. @throws SlimeError `codec.refused` or `wire.limit` for a broken frame; messages before the fault were handed on.
 */
export function readFrame(
  buffer: Buffer,
  start: number,
  total: number,
  owned: boolean,
  hooks: CodecHooks | undefined,
  limits: FrameLimits,
  sink: FrameSink,
): boolean {
  const headerBytes = headerBytesOf(buffer, start, total);
  let table: readonly number[] = [];
  const reader: ValueReader = new ValueReader(
    buffer,
    start + 8,
    start + 8 + headerBytes,
    (index: number): Uint8Array => segmentOf(buffer, start, table, index, owned ? viewBytesMin : Infinity, reader),
    hooks,
    limits,
  );
  const prefix = readPrefix(reader, headerBytes, total, limits);
  table = prefix.segments;
  sink.onFrame(prefix.epoch);
  for (let i = 0; i < prefix.messages; i++) {
    readMessage(reader, sink);
    if (sink.ended) return false;
  }
  if (!reader.atEnd) throw reader.refused("bytes follow the last message");
  return true;
}
