import { SlimeError } from "@slime/core";
import type { FrameLimits } from "./limits.js";
import { limit } from "./msgpack-reader.js";

/** Takes one whole frame: `total` bytes of `buffer` from `start`, which it may keep only if `owned`. False: take no more. */
export type FrameTaker = (buffer: Buffer, start: number, total: number, owned: boolean) => boolean;

/** Cuts a stream of chunks into frames. A frame within one chunk is handed out in place; only one that spans chunks is copied, once. */
export class FrameAssembler {
  readonly #limits: FrameLimits;
  readonly #take: FrameTaker;
  /** Less than a frame's first 4 bytes, left over. */
  #rest: Buffer = Buffer.alloc(0);
  /** The frame that spans chunks, in its own memory. */
  #partial: Buffer | undefined;
  #filled = 0;

  constructor(limits: FrameLimits, take: FrameTaker) {
    this.#limits = limits;
    this.#take = take;
  }

  /** Throws `wire.limit` or `codec.refused` for a length no frame can have; the stream is then of no more use. */
  push(incoming: Buffer): void {
    let chunk = incoming;
    let at = 0;
    const partial = this.#partial;
    if (partial !== undefined) {
      at = Math.min(chunk.length, partial.length - this.#filled);
      chunk.copy(partial, this.#filled, 0, at);
      this.#filled += at;
      if (this.#filled < partial.length) return;
      this.#partial = undefined;
      if (!this.#take(partial, 0, partial.length, true)) return;
    }
    if (this.#rest.length > 0) {
      chunk = Buffer.concat([this.#rest, at === 0 ? chunk : chunk.subarray(at)]);
      at = 0;
      this.#rest = Buffer.alloc(0);
    }
    while (chunk.length - at >= 4) {
      const total = chunk.readUInt32LE(at);
      if (total < 8)
        throw new SlimeError("codec.refused", `a frame claims ${total} bytes; the other end does not speak slime's frames`, {
          where: "frame",
          reason: "length",
        });
      if (total > this.#limits.frameBytesMax) throw limit("bytes of a frame", total, this.#limits.frameBytesMax);
      if (chunk.length - at < total) {
        this.#partial = Buffer.allocUnsafeSlow(total);
        this.#filled = chunk.copy(this.#partial, 0, at);
        return;
      }
      if (!this.#take(chunk, at, total, false)) return;
      at += total;
    }
    if (at < chunk.length) this.#rest = Buffer.from(chunk.subarray(at));
  }
}
