import { SlimeError } from "@slime/core";

/** One tensor of a safetensors file: single precision, row-major. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Largest header accepted, in bytes; the format's own bound. */
const headerBytesMax = 100_000_000;

/** Number formats that are read. */
type Dtype = "F32" | "F16" | "BF16";

/** Where one tensor lies in a file. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly count: number;
  /** First byte, from the start of the file, and the one after the last. */
  readonly from: number;
  readonly to: number;
}

/**
 * A safetensors file in parts, to be written one after the other: u64 length, JSON header padded with spaces to 8, then the data, adjacent
 * and in the order given. The data are views: nothing is copied.
 * @param metadata goes under `__metadata__`: text only, as the format wants.
 */
export function safetensorsParts(tensors: readonly NamedTensor[], metadata: Readonly<Record<string, string>> = {}): Uint8Array[] {
  let at = 0;
  const header: Record<string, unknown> = Object.keys(metadata).length === 0 ? {} : { __metadata__: metadata };
  for (const { name, shape, data } of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const headerBytes = Math.ceil(text.length / 8) * 8;
  const head = new Uint8Array(8 + headerBytes).fill(0x20, 8);
  new DataView(head.buffer).setBigUint64(0, BigInt(headerBytes), true);
  head.set(text, 8);
  return [head, ...tensors.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength))];
}

/** The bytes of a small file at once. */
export function encodeSafetensors(tensors: readonly NamedTensor[], metadata: Readonly<Record<string, string>> = {}): Uint8Array {
  return new Uint8Array(Buffer.concat(safetensorsParts(tensors, metadata)));
}

/** Bytes of the JSON header, by a file's first eight. @throws `checkpoint.invalid` for a length that cannot be one. */
export function headerBytesOf(start: Uint8Array, fileBytes: number, path: string): number {
  if (start.length < 8) return refuse(path, `${start.length} bytes are too few for a safetensors file`);
  const headerBytes = Number(new DataView(start.buffer, start.byteOffset, 8).getBigUint64(0, true));
  if (headerBytes > headerBytesMax || 8 + headerBytes > fileBytes)
    return refuse(path, `the header claims ${headerBytes} bytes, the file has ${fileBytes}: it is cut off or not safetensors`);
  return headerBytes;
}

/** The tensors that a header names. Every length is checked against the file's before anything is allocated from it. @throws `checkpoint.invalid`. */
export function parseHeader(headerText: Uint8Array, fileBytes: number, path: string): ReadonlyMap<string, TensorEntry> {
  let header: unknown;
  try {
    header = JSON.parse(Buffer.from(headerText).toString("utf8"));
  } catch (cause) {
    return refuse(path, "the header is not JSON", cause);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) return refuse(path, "the header is not an object");
  const start = 8 + headerText.length;
  const entries = new Map<string, TensorEntry>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Readonly<Record<string, unknown>>;
    if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16")
      return refuse(path, `tensor ${name} has dtype ${JSON.stringify(dtype)}; F32, F16 and BF16 are read`);
    if (!isCounts(shape) || !isCounts(offsets) || offsets.length !== 2)
      return refuse(path, `tensor ${name} has no valid shape and data_offsets`);
    const count = shape.reduce((a, b) => a * b, 1);
    const [from, to] = [start + (offsets[0] ?? 0), start + (offsets[1] ?? 0)];
    if (to - from !== count * bytesOf(dtype) || to > fileBytes)
      return refuse(
        path,
        `tensor ${name} of shape [${shape.join(", ")}] does not fit its bytes ${from} to ${to} in a file of ${fileBytes}`,
      );
    entries.set(name, { name, dtype, shape, count, from, to });
  }
  return entries;
}

/** Reads a small safetensors file whole; F32, F16 and BF16 become single precision. @throws `checkpoint.invalid` when the bytes are not what their header says. */
export function decodeSafetensors(bytes: Uint8Array, path: string): ReadonlyMap<string, NamedTensor> {
  const headerBytes = headerBytesOf(bytes.subarray(0, 8), bytes.length, path);
  const tensors = new Map<string, NamedTensor>();
  for (const { name, dtype, shape, count, from, to } of parseHeader(bytes.subarray(8, 8 + headerBytes), bytes.length, path).values()) {
    const data = new Float32Array(count);
    // A copy, never a view: a Buffer's slice would share its pool, whose offset need not be a multiple of 4.
    widen(new Uint8Array(bytes.subarray(from, to)), dtype, data);
    tensors.set(name, { name, shape, data });
  }
  return tensors;
}

/** Bytes of one number. */
export function bytesOf(dtype: Dtype): number {
  return dtype === "F32" ? 4 : 2;
}

/** Writes the numbers of `bytes` (whose buffer it starts, or at a multiple of 4) to `out` in single precision. */
export function widen(bytes: Uint8Array, dtype: Dtype, out: Float32Array): void {
  if (dtype === "F32") {
    new Uint8Array(out.buffer, out.byteOffset, out.byteLength).set(bytes);
    return;
  }
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, out.length);
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  if (dtype === "BF16") for (let i = 0; i < bits.length; i++) bits[i] = (halves[i] ?? 0) << 16;
  else {
    const table = f16Table();
    for (let i = 0; i < out.length; i++) out[i] = table[halves[i] ?? 0] ?? 0;
  }
}

let f16Values: Float32Array | undefined;

/** Every half-precision number by its bits; made at first use. */
function f16Table(): Float32Array {
  f16Values ??= Float32Array.from({ length: 1 << 16 }, (_, h) => {
    const exponent = (h >> 10) & 31;
    const fraction = h & 1023;
    const special = fraction === 0 ? Infinity : Number.NaN;
    const size = exponent === 0 ? fraction * 2 ** -24 : exponent === 31 ? special : (1 + fraction / 1024) * 2 ** (exponent - 15);
    return h & 0x8000 ? -size : size;
  });
  return f16Values;
}

function isCounts(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((v) => Number.isSafeInteger(v) && v >= 0);
}

function refuse(path: string, reason: string, cause?: unknown): never {
  throw new SlimeError("checkpoint.invalid", `${path}: ${reason}`, { path, reason }, cause === undefined ? {} : { cause });
}
