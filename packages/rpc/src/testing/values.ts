import { NdArray } from "../nd-array.js";

/** Values as JSON for golden files that other languages read: what JSON lacks is a map with one "$" key. */
export function toGolden(value: unknown): unknown {
  if (value === undefined) return { $undefined: true };
  if (typeof value === "bigint") return { $big: value.toString() };
  if (typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0)))
    return { $number: Object.is(value, -0) ? "-0" : String(value) };
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof NdArray) return { $nd: [value.dtype, value.shape, hex(value.data)] };
  if (value instanceof Uint8Array) return { $bytes: hex(value) };
  if (ArrayBuffer.isView(value)) return { $array: [value.constructor.name, hex(value)] };
  if (Array.isArray(value)) return value.map(toGolden);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toGolden(item)]));
}

function hex(view: ArrayBufferView): string {
  return Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString("hex");
}
