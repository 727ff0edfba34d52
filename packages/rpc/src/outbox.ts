import { SlimeError } from "@slime/core";
import type { CodecHooks } from "./codec-hooks.js";
import { aligned, frameParts, prefixRoom, sealPlain } from "./frame.js";
import type { FrameLimits } from "./limits.js";
import { limit } from "./msgpack-reader.js";
import { MsgpackWriter } from "./msgpack-writer.js";
import { ValueWriter } from "./value-writer.js";
import type { Wire } from "./wire.js";

const bufferBytes = 64 * 1024;
/** A turn past this is cut into several frames, so that the other side can begin. */
const frameBytesSoftMax = 4 * 1024 * 1024;
/** While more than this waits in the wire, turns are joined here instead of queued there. */
const unsentBytesHold = 1024 * 1024;
/** Array elements a message adds by itself, at most. */
const itemsPerMessage = 8;

/**
 * Gathers the messages of a turn into one frame.
 * Invariant O1: a message is in the frame whole or not at all. O2: what waits (here and in the wire) stays within `bytesMax`
 * except for messages the protocol itself needs.
 */
export class Outbox {
  readonly #wire: Wire;
  readonly #limits: FrameLimits;
  readonly #bytesMax: number;
  readonly #epoch: () => number;
  readonly #writer: ValueWriter;
  #messages = 0;
  #segmentBytes = 0;
  /** Frames sealed early, waiting to be written. */
  #sealed: Uint8Array[] = [];
  #sealedBytes = 0;

  constructor(options: {
    readonly wire: Wire;
    readonly limits: FrameLimits;
    readonly bytesMax: number;
    readonly epoch: () => number;
    readonly hooks: CodecHooks | undefined;
  }) {
    this.#wire = options.wire;
    this.#limits = options.limits;
    this.#bytesMax = options.bytesMax;
    this.#epoch = options.epoch;
    this.#writer = new ValueWriter(new MsgpackWriter(bufferBytes, prefixRoom), options.hooks, options.limits);
  }

  /** Nothing waits here for a flush. */
  get empty(): boolean {
    return this.#messages === 0 && this.#sealed.length === 0;
  }

  /** Adds one message. When `write` throws, or the message does not fit, nothing is added and the error goes on (O1). */
  add(write: (out: ValueWriter) => void, needed: boolean): void {
    const out = this.#writer;
    if (
      this.#messages > 0 &&
      (out.out.position > frameBytesSoftMax ||
        out.items > this.#limits.itemsMax / 2 ||
        out.segments.length > this.#limits.segmentsMax / 2 ||
        this.#messages >= this.#limits.messagesMax)
    )
      this.#seal();
    const position = out.out.position;
    const segments = out.segments.length;
    const items = out.items;
    const before = this.#segmentBytes;
    try {
      out.items += itemsPerMessage;
      write(out);
      for (let i = segments; i < out.segments.length; i++) this.#segmentBytes += out.segments[i]?.byteLength ?? 0;
      this.#checkSize(position, segments, before, needed);
    } catch (error) {
      out.out.position = position;
      out.segments.length = segments;
      out.items = items;
      this.#segmentBytes = before;
      throw error;
    }
    // The caller may change its arrays as soon as this returns.
    for (let i = segments; i < out.segments.length; i++) out.segments[i] = new Uint8Array(out.segments[i] ?? []);
    this.#messages++;
    if (this.#segmentBytes > frameBytesSoftMax) this.#seal();
  }

  /** Hands what waits to the wire, unless that is still full; then again on its drain. */
  flush(): void {
    if (this.empty || this.#wire.unsentBytes > unsentBytesHold) return;
    const out = this.#writer.out;
    if (this.#sealed.length === 0 && this.#writer.segments.length === 0) {
      const start = sealPlain(out.buffer, out.position, this.#epoch(), this.#messages);
      this.#wire.write([out.buffer.subarray(start, out.position)]);
      this.#restart(this.#wire.unsentBytes === 0 && out.buffer.length <= bufferBytes);
      return;
    }
    this.#seal();
    const parts = this.#sealed;
    this.#sealed = [];
    this.#sealedBytes = 0;
    this.#wire.write(parts);
  }

  #seal(): void {
    if (this.#messages === 0) return;
    const out = this.#writer;
    for (const part of frameParts(out.out.buffer.subarray(prefixRoom, out.out.position), out.segments, this.#epoch(), this.#messages)) {
      this.#sealed.push(part);
      this.#sealedBytes += part.byteLength;
    }
    this.#restart(out.out.buffer.length <= bufferBytes);
  }

  #restart(keepBuffer: boolean): void {
    if (keepBuffer) this.#writer.out.position = prefixRoom;
    else this.#writer.out.renew(bufferBytes, prefixRoom);
    this.#writer.reset();
    this.#messages = 0;
    this.#segmentBytes = 0;
  }

  #checkSize(position: number, segments: number, before: number, needed: boolean): void {
    const out = this.#writer;
    const message = out.out.position - position + (this.#segmentBytes - before) + aligned((out.segments.length - segments) * 64);
    if (out.out.position + this.#segmentBytes + out.segments.length * 80 + 64 > this.#limits.frameBytesMax)
      throw limit("bytes of a message", message, this.#limits.frameBytesMax);
    if (needed) return;
    const waiting = out.out.position + this.#segmentBytes + this.#sealedBytes + this.#wire.unsentBytes;
    if (waiting > this.#bytesMax) {
      throw new SlimeError(
        "wire.limit",
        `${waiting} bytes wait for ${this.#wire.name}, more than ${this.#bytesMax}; it reads too slowly: wait for results before sending more`,
        { what: "bytes waiting to be sent", value: waiting, max: this.#bytesMax },
      );
    }
  }
}
