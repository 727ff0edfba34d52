import { SlimeError } from "@slime/core";
import type { CodecHooks } from "./codec-hooks.js";
import { bigDigitsMax, type FrameLimits, wireLimits } from "./limits.js";
import { limit } from "./msgpack-reader.js";
import type { MsgpackWriter } from "./msgpack-writer.js";
import { type Dtype, dtypeOf, NdArray, type TypedArray } from "./nd-array.js";
import { explainRefusal } from "./refusal.js";

/** Bytes up to this length are written in place; longer ones become a segment. */
export const inlineBytesMax = 1024;

/** Thrown deep inside a value; the path to the place is looked for only then. */
const refusal = Symbol("refused");

const objectPrototype: object = Object.prototype;
const bytesPrototypes = new Set<object>([Uint8Array.prototype, Buffer.prototype]);

/**
 * Writes user values: plain data as plain MessagePack, typed arrays and long bytes as segments beside it, the rest as tagged maps.
 * Tags: `{"__nd": [dtype, shape, segment]}`, `{"__bytes": segment}`, `{"__big": "decimal"}`, `{"__undef": null}`, and the hooks'.
 * Keys of user maps that begin with "__" get another "__" in front.
 * Invariant C1: what is written reads back equal (bytes as Uint8Array), or nothing is written and the error names the path.
 */
export class ValueWriter {
  readonly out: MsgpackWriter;
  readonly #hooks: CodecHooks | undefined;
  readonly #limits: FrameLimits;
  /** Raw bytes that the messages refer to by index; views of the caller's memory. */
  segments: Uint8Array[] = [];
  /** Array elements and map entries written, as the reader counts them. */
  items = 0;

  constructor(out: MsgpackWriter, hooks: CodecHooks | undefined, limits: FrameLimits = wireLimits) {
    this.out = out;
    this.#hooks = hooks;
    this.#limits = limits;
  }

  /** Forgets the segments; the next frame counts anew. */
  reset(): void {
    if (this.segments.length > 0) this.segments = [];
    this.items = 0;
  }

  /** Writes one value, or throws `codec.refused` or `wire.limit`; the caller then takes back what was written before the throw. */
  value(value: unknown): void {
    try {
      this.#value(value, 0);
    } catch (error) {
      if (error !== refusal) throw error;
      throw explainRefusal(value, this.#hooks, this.#limits.depthMax);
    }
  }

  #value(value: unknown, depth: number): void {
    switch (typeof value) {
      case "string":
        if (value.length * 3 > this.#limits.stringBytesMax && Buffer.byteLength(value) > this.#limits.stringBytesMax)
          throw limit("bytes of a string", Buffer.byteLength(value), this.#limits.stringBytesMax);
        return this.out.string(value);
      case "number":
        return this.out.number(value);
      case "boolean":
        return this.out.boolean(value);
      case "undefined":
        this.#tag("__undef");
        return this.out.nil();
      case "bigint":
        return this.#big(value);
      case "object":
        return value === null ? this.out.nil() : this.#object(value, depth);
      case "function":
        return this.#special(value, depth);
      default:
        throw refusal;
    }
  }

  #object(value: object, depth: number): void {
    if (Array.isArray(value)) return this.#array(value, depth);
    const prototype: object | null = Object.getPrototypeOf(value) as object | null;
    if (prototype === objectPrototype || prototype === null) return this.#map(value as Readonly<Record<string, unknown>>, depth);
    if (bytesPrototypes.has(prototype)) return this.#bytes(value as Uint8Array);
    const dtype = dtypeOf(prototype);
    if (dtype !== undefined) {
      const array = value as TypedArray;
      return this.#nd(dtype, [array.length], array);
    }
    if (value instanceof NdArray) return this.#nd(value.dtype, value.shape, value.data);
    return this.#special(value, depth);
  }

  #array(value: readonly unknown[], depth: number): void {
    if (depth >= this.#limits.depthMax) throw refusal;
    const count = value.length;
    this.#count(count);
    this.out.array(count);
    for (let i = 0; i < count; i++) this.#value(value[i], depth + 1);
  }

  #map(value: Readonly<Record<string, unknown>>, depth: number): void {
    if (depth >= this.#limits.depthMax) throw refusal;
    const keys = Object.keys(value);
    this.#count(keys.length);
    this.out.map(keys.length);
    for (const key of keys) {
      this.out.string(key.charCodeAt(0) === 95 && key.charCodeAt(1) === 95 ? `__${key}` : key);
      this.#value(value[key], depth + 1);
    }
  }

  #bytes(value: Uint8Array): void {
    if (value.byteLength <= inlineBytesMax) return this.out.bytes(value);
    this.#tag("__bytes");
    this.out.number(this.#segment(value));
  }

  #nd(dtype: Dtype, shape: readonly number[], data: TypedArray): void {
    this.#tag("__nd");
    this.#count(3 + shape.length);
    this.out.array(3);
    this.out.string(dtype);
    this.out.array(shape.length);
    for (const axis of shape) this.out.number(axis);
    this.out.number(this.#segment(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)));
  }

  #big(value: bigint): void {
    const text = value.toString();
    if (text.length > bigDigitsMax) throw refusal;
    this.#tag("__big");
    this.out.string(text);
  }

  #special(value: object, depth: number): void {
    if (depth >= this.#limits.depthMax) throw refusal;
    const special = this.#hooks?.encodeSpecial(value);
    if (special === undefined) throw refusal;
    this.#tag(special.tag);
    this.#value(special.payload, depth + 1);
  }

  #tag(tag: string): void {
    this.#count(1);
    this.out.map(1);
    this.out.string(tag);
  }

  #segment(bytes: Uint8Array): number {
    if (this.segments.length >= this.#limits.segmentsMax)
      throw limit("segments of a frame", this.segments.length + 1, this.#limits.segmentsMax);
    return this.segments.push(bytes) - 1;
  }

  #count(items: number): void {
    this.items += items;
    if (this.items > this.#limits.itemsMax) throw limit("items of a frame", this.items, this.#limits.itemsMax);
  }
}

/** A first estimate of a value's encoded bytes, which stops counting once past `stopAt`: to choose between a message and the store. */
export function estimateBytes(value: unknown, stopAt: number, depthMax = wireLimits.depthMax): number {
  switch (typeof value) {
    case "string":
      return value.length + 1;
    case "object": {
      if (value === null) return 1;
      if (ArrayBuffer.isView(value)) return value.byteLength + 16;
      if (value instanceof NdArray) return value.data.byteLength + 24;
      if (depthMax === 0) return 1;
      let sum = 1;
      if (Array.isArray(value)) {
        for (const item of value as readonly unknown[]) {
          sum += estimateBytes(item, stopAt - sum, depthMax - 1);
          if (sum > stopAt) break;
        }
        return sum;
      }
      const prototype: object | null = Object.getPrototypeOf(value) as object | null;
      if (prototype !== objectPrototype && prototype !== null) return 64;
      for (const [key, item] of Object.entries(value)) {
        sum += key.length + 1 + estimateBytes(item, stopAt - sum, depthMax - 1);
        if (sum > stopAt) break;
      }
      return sum;
    }
    case "number":
      return (value | 0) === value && value >= -32 && value < 128 ? 1 : 5;
    case "undefined":
    case "bigint":
      return 9;
    default:
      return 1;
  }
}

/** `codec.refused`, for callers outside a value. */
export function refused(where: string, reason: string): SlimeError<"codec.refused"> {
  return new SlimeError("codec.refused", `${where} cannot be sent: ${reason}`, { where, reason });
}
