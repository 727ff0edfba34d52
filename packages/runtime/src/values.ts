import { SlimeError } from "@slime/core";
import type { ObjectDescriptor } from "@slime/rpc";
import { runtimeLimits } from "./limits.js";
import { ObjectRef } from "./object-ref.js";

/** The very value lies in the object store: how a large argument or result travels (`__stored`). Never seen by user code. */
export class StoredValue {
  readonly object: ObjectDescriptor;
  constructor(object: ObjectDescriptor) {
    this.object = object;
  }
}

/** What a look through a value found. */
export interface Measured {
  /** An estimate of its size on the wire; exact for typed arrays, an upper bound of UTF-16 units for strings. */
  readonly bytes: number;
  /** References inside, in order; null when there are none. */
  readonly refs: ObjectRef<unknown>[] | null;
}

/** Looks through plain data once: how large, and which references. Numbers count 9 bytes, as msgpack's largest. */
export function measure(value: unknown): Measured {
  let refs: ObjectRef<unknown>[] | null = null;
  const visit = (at: unknown, depth: number): number => {
    if (typeof at === "string") return at.length + 5;
    if (typeof at !== "object" || at === null) return 9;
    if (ArrayBuffer.isView(at)) return at.byteLength + 64;
    if (depth > runtimeLimits.valueDepthMax) {
      throw new SlimeError("codec.refused", `a value nests deeper than ${runtimeLimits.valueDepthMax}; is it a cycle?`, {
        where: "value",
        reason: "depth",
      });
    }
    if (at instanceof ObjectRef) {
      (refs ??= []).push(at);
      return 64;
    }
    let bytes = 5;
    if (Array.isArray(at)) {
      for (const item of at) bytes += visit(item, depth + 1);
      return bytes;
    }
    for (const key in at) bytes += key.length + 5 + visit((at as Record<string, unknown>)[key], depth + 1);
    return bytes;
  };
  const bytes = visit(value, 0);
  return { bytes, refs };
}

/**
 * A copy of plain data, so that a call that must wait keeps the arguments of the moment it was made. Class instances
 * (references, handles) are kept as they are.
 */
export function snapshot(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (ArrayBuffer.isView(value)) return value instanceof DataView ? value : copyOf(value as Uint8Array);
  if (Array.isArray(value)) return value.map(snapshot);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, snapshot(item)]));
}

/** A copy of the elements in view, of the same kind: a Buffer's own `slice` would not copy. */
function copyOf(array: Uint8Array): unknown {
  return Uint8Array.prototype.slice.call(array);
}
