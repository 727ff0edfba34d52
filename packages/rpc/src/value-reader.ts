import type { CodecHooks } from "./codec-hooks.js";
import { type FrameLimits, wireLimits } from "./limits.js";
import { limit, MsgpackReader } from "./msgpack-reader.js";
import { dtypes, elementsOf, isDtype, NdArray } from "./nd-array.js";

/** Gives the bytes of segment `index`, aligned to 8, or throws when there is no such segment. */
export type SegmentSource = (index: number) => Uint8Array;

/** Reads what `ValueWriter` wrote. A throw of a hook is kept in `hookError`, with the position after the value, so that one bad reference costs one call, not the connection. */
export class ValueReader extends MsgpackReader {
  readonly #hooks: CodecHooks | undefined;
  readonly #segments: SegmentSource;
  readonly #depthMax: number;
  /** The first error that a hook threw since this was last set to undefined. */
  hookError: unknown;

  constructor(
    buffer: Buffer,
    start: number,
    end: number,
    segments: SegmentSource,
    hooks: CodecHooks | undefined,
    limits: FrameLimits = wireLimits,
  ) {
    super(buffer, start, end, limits);
    this.#segments = segments;
    this.#hooks = hooks;
    this.#depthMax = limits.depthMax;
  }

  value(): unknown {
    return this.#value(0);
  }

  #value(depth: number): unknown {
    const type = this.type();
    if (type < 0x80 || type >= 0xe0) return this.numberOf(type);
    if (type === 0xc0) return null;
    if (type === 0xc2) return false;
    if (type === 0xc3) return true;
    const stringBytes = this.stringBytesOf(type);
    if (stringBytes >= 0) return this.text(stringBytes);
    const mapCount = this.mapCountOf(type);
    if (mapCount >= 0) return this.#map(mapCount, depth);
    const arrayCount = this.arrayCountOf(type);
    if (arrayCount >= 0) return this.#array(arrayCount, depth);
    const number = this.numberOf(type);
    if (number !== undefined) return number;
    const bytes = this.bytesOf(type);
    if (bytes !== undefined) return bytes;
    throw this.refused(`type 0x${type.toString(16)} is not plain MessagePack`);
  }

  #array(count: number, depth: number): unknown[] {
    this.#deeper(depth);
    const array: unknown[] = [];
    for (let i = 0; i < count; i++) array.push(this.#value(depth + 1));
    return array;
  }

  #map(count: number, depth: number): unknown {
    this.#deeper(depth);
    const map: Record<string, unknown> = {};
    for (let i = 0; i < count; i++) {
      const key = this.string("a map key");
      if (key.charCodeAt(0) !== 95 || key.charCodeAt(1) !== 95) {
        map[key] = this.#value(depth + 1);
        continue;
      }
      if (key.charCodeAt(2) === 95 && key.charCodeAt(3) === 95) {
        // Defined, not assigned: `__proto__` is a key like any other.
        Object.defineProperty(map, key.slice(2), { value: this.#value(depth + 1), enumerable: true, writable: true, configurable: true });
        continue;
      }
      if (count !== 1) throw this.refused(`key ${key} is reserved`);
      return this.#tagged(key, depth);
    }
    return map;
  }

  #tagged(tag: string, depth: number): unknown {
    switch (tag) {
      case "__nd":
        return this.#nd();
      case "__bytes":
        return this.#segments(this.count("a segment's index"));
      case "__undef":
        if (!this.skipNil()) throw this.refused("__undef holds a value");
        return undefined;
      case "__big":
        return this.#big();
      default:
        return this.#special(tag, this.#value(depth + 1));
    }
  }

  #special(tag: string, payload: unknown): unknown {
    try {
      if (this.#hooks === undefined) throw this.refused(`tag ${tag} is not known here`);
      return this.#hooks.decodeSpecial(tag, payload);
    } catch (error) {
      this.hookError ??= error ?? new Error(`tag ${tag} failed`);
      return null;
    }
  }

  #nd(): unknown {
    if (this.arrayCount("__nd") !== 3) throw this.refused("__nd is not [dtype, shape, segment]");
    const dtype = this.string("a dtype");
    if (!isDtype(dtype)) throw this.refused(`dtype ${JSON.stringify(dtype.slice(0, 20))} is not known`);
    const axes = this.arrayCount("a shape");
    if (axes > 32) throw limit("axes of an array", axes, 32);
    const shape: number[] = [];
    for (let i = 0; i < axes; i++) shape.push(this.count("an axis"));
    const bytes = this.#segments(this.count("a segment's index"));
    const facts = dtypes[dtype];
    const elements = elementsOf(shape);
    if (elements * facts.bytes !== bytes.byteLength)
      throw this.refused(`a segment of ${bytes.byteLength} bytes does not hold ${dtype}[${shape.join(", ")}]`);
    const data = new facts.array(bytes.buffer, bytes.byteOffset, elements);
    return axes === 1 && dtype !== "f2" && dtype !== "b1" ? data : new NdArray(dtype, shape, data);
  }

  #big(): bigint {
    const text = this.string("__big");
    if (!/^-?\d{1,4000}$/.test(text)) throw this.refused("__big is not a decimal number of at most 4,000 digits");
    return BigInt(text);
  }

  #deeper(depth: number): void {
    if (depth >= this.#depthMax) throw limit("depth of a value", depth + 1, this.#depthMax);
  }
}
