import { isUtf8 } from "node:buffer";
import { SlimeError } from "@slime/core";
import type { FrameLimits } from "./limits.js";

/**
 * Reads plain MessagePack strictly. Invariants:
 * M1 a length or count is compared with its limit and with the bytes that are left before anything is allocated for it;
 * M2 extension types, invalid UTF-8 and map keys that are no strings are refused;
 * M3 no read leaves the bytes given.
 * Throws `wire.limit` or `codec.refused`; after either, the position means nothing and the frame is to be dropped.
 */
export class MsgpackReader {
  readonly #buffer: Buffer;
  readonly #end: number;
  readonly #limits: FrameLimits;
  #items = 0;
  position: number;

  constructor(buffer: Buffer, start: number, end: number, limits: FrameLimits) {
    this.#buffer = buffer;
    this.#end = end;
    this.#limits = limits;
    this.position = start;
  }

  get atEnd(): boolean {
    return this.position === this.#end;
  }

  /** The type byte that comes next, not taken. */
  peek(): number {
    if (this.position >= this.#end) throw this.#short();
    return this.#buffer[this.position] as number;
  }

  /** Takes the type byte. */
  type(): number {
    const type = this.peek();
    this.position++;
    return type;
  }

  /** Takes nil if it is next. */
  skipNil(): boolean {
    if (this.peek() !== 0xc0) return false;
    this.position++;
    return true;
  }

  arrayCount(what: string): number {
    const count = this.arrayCountOf(this.type());
    if (count < 0) throw this.refused(`${what} is not an array`);
    return count;
  }

  /** The count when `type` begins an array, else −1. */
  arrayCountOf(type: number): number {
    if ((type & 0xf0) === 0x90) return this.#counted(type & 0x0f, 1);
    if (type === 0xdc) return this.#counted(this.#uint(2), 1);
    if (type === 0xdd) return this.#counted(this.#uint(4), 1);
    return -1;
  }

  /** The count of entries when `type` begins a map, else −1. */
  mapCountOf(type: number): number {
    if ((type & 0xf0) === 0x80) return this.#counted(type & 0x0f, 2);
    if (type === 0xde) return this.#counted(this.#uint(2), 2);
    if (type === 0xdf) return this.#counted(this.#uint(4), 2);
    return -1;
  }

  string(what: string): string {
    const bytes = this.stringBytesOf(this.type());
    if (bytes < 0) throw this.refused(`${what} is not a string`);
    return this.text(bytes);
  }

  /** The length in bytes when `type` begins a string, else −1. */
  stringBytesOf(type: number): number {
    if ((type & 0xe0) === 0xa0) return type & 0x1f;
    if (type === 0xd9) return this.#uint(1);
    if (type === 0xda) return this.#uint(2);
    if (type === 0xdb) return this.#uint(4);
    return -1;
  }

  /** `bytes` of UTF-8. */
  text(bytes: number): string {
    if (bytes > this.#limits.stringBytesMax) throw limit("bytes of a string", bytes, this.#limits.stringBytesMax);
    const start = this.#take(bytes);
    const buffer = this.#buffer;
    if (bytes < 16) {
      let text = "";
      let at = start;
      for (; at < start + bytes; at++) {
        const code = buffer[at] as number;
        if (code > 0x7f) break;
        text += String.fromCharCode(code);
      }
      if (at === start + bytes) return text;
    }
    if (!isUtf8(buffer.subarray(start, start + bytes))) throw this.refused("a string is not UTF-8");
    return buffer.toString("utf8", start, start + bytes);
  }

  /** The bytes when `type` begins them, copied so that they do not hold the frame; else undefined. */
  bytesOf(type: number): Uint8Array | undefined {
    const length = type === 0xc4 ? this.#uint(1) : type === 0xc5 ? this.#uint(2) : type === 0xc6 ? this.#uint(4) : -1;
    if (length < 0) return undefined;
    const start = this.#take(length);
    const copy = new Uint8Array(length);
    copy.set(this.#buffer.subarray(start, start + length));
    return copy;
  }

  /** A whole number of 0 … 2⁵³−1. */
  count(what: string): number {
    const value = this.numberOf(this.type());
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw this.refused(`${what} is not a whole number`);
    return value;
  }

  /** The number when `type` begins one; a bigint past ±2⁵³, so that nothing is rounded; else undefined. */
  numberOf(type: number): number | bigint | undefined {
    if (type < 0x80) return type;
    if (type >= 0xe0) return type - 0x100;
    const buffer = this.#buffer;
    switch (type) {
      case 0xca:
        return buffer.readFloatBE(this.#take(4));
      case 0xcb:
        return buffer.readDoubleBE(this.#take(8));
      case 0xcc:
        return this.#uint(1);
      case 0xcd:
        return this.#uint(2);
      case 0xce:
        return this.#uint(4);
      case 0xcf:
        return narrow(buffer.readBigUInt64BE(this.#take(8)));
      case 0xd0:
        return buffer.readInt8(this.#take(1));
      case 0xd1:
        return buffer.readInt16BE(this.#take(2));
      case 0xd2:
        return buffer.readInt32BE(this.#take(4));
      case 0xd3:
        return narrow(buffer.readBigInt64BE(this.#take(8)));
      default:
        return undefined;
    }
  }

  refused(reason: string): SlimeError<"codec.refused"> {
    return new SlimeError("codec.refused", `${reason}, at byte ${this.position} of a frame; do both ends run the same version of slime?`, {
      where: `byte ${this.position}`,
      reason,
    });
  }

  /** M1: each item takes at least one byte. */
  #counted(count: number, bytesEach: number): number {
    if (count * bytesEach > this.#end - this.position) throw this.#short();
    this.#items += count;
    if (this.#items > this.#limits.itemsMax) throw limit("items of a frame", this.#items, this.#limits.itemsMax);
    return count;
  }

  #take(bytes: number): number {
    const start = this.position;
    if (bytes > this.#end - start) throw this.#short();
    this.position = start + bytes;
    return start;
  }

  #uint(bytes: 1 | 2 | 4): number {
    const at = this.#take(bytes);
    const buffer = this.#buffer;
    if (bytes === 1) return buffer[at] as number;
    return bytes === 2 ? buffer.readUInt16BE(at) : buffer.readUInt32BE(at);
  }

  #short(): SlimeError<"codec.refused"> {
    return this.refused("the header ends within a value");
  }
}

/** `wire.limit` for a value that is past its limit. */
export function limit(what: string, value: number, max: number): SlimeError<"wire.limit"> {
  return new SlimeError(
    "wire.limit",
    `${what}: ${value} is more than ${max}; send less at once, or put large values into the object store`,
    { what, value, max },
  );
}

function narrow(value: bigint): number | bigint {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}
