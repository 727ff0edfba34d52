import { SlimeError } from "@slime/core";

/** One tensor of a safetensors file: single precision, row-major. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Largest header accepted, in bytes; the format's own bound. */
const headerBytesMax = 100_000_000;

/**
 * The bytes of a safetensors file: u64 length, JSON header padded with spaces to 8, then the data, adjacent and in the order given.
 * @param metadata goes under `__metadata__`: text only, as the format wants.
 */
export function encodeSafetensors(
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  let at = 0;
  const header: Record<string, unknown> = Object.keys(metadata).length === 0 ? {} : { __metadata__: metadata };
  for (const { name, shape, data } of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const headerBytes = Math.ceil(text.length / 8) * 8;
  const out = new Uint8Array(8 + headerBytes + at).fill(0x20, 8, 8 + headerBytes);
  new DataView(out.buffer).setBigUint64(0, BigInt(headerBytes), true);
  out.set(text, 8);
  let to = 8 + headerBytes;
  for (const { data } of tensors) {
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), to);
    to += data.byteLength;
  }
  return out;
}

/**
 * Reads a safetensors file; F32, F16 and BF16 become single precision. Every length is checked before anything is allocated from it.
 * @param path names the file in messages. @throws `checkpoint.invalid` when the bytes are not what their header says.
 */
export function decodeSafetensors(bytes: Uint8Array, path: string): ReadonlyMap<string, NamedTensor> {
  const refuse = (reason: string): never => {
    throw new SlimeError("checkpoint.invalid", `${path}: ${reason}`, { path, reason });
  };
  if (bytes.length < 8) return refuse(`${bytes.length} bytes are too few for a safetensors file`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerBytes = Number(view.getBigUint64(0, true));
  if (headerBytes > headerBytesMax || 8 + headerBytes > bytes.length)
    return refuse(`the header claims ${headerBytes} bytes, the file has ${bytes.length}: it is cut off or not safetensors`);
  let header: unknown;
  try {
    header = JSON.parse(Buffer.from(bytes.subarray(8, 8 + headerBytes)).toString("utf8"));
  } catch (cause) {
    throw new SlimeError("checkpoint.invalid", `${path}: the header is not JSON`, { path, reason: "the header is not JSON" }, { cause });
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) return refuse("the header is not an object");
  const tensors = new Map<string, NamedTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const {
      dtype,
      shape,
      data_offsets: offsets,
    } = (entry ?? {}) as { readonly dtype?: unknown; readonly shape?: unknown; readonly data_offsets?: unknown };
    const size = dtype === "F32" ? 4 : dtype === "F16" || dtype === "BF16" ? 2 : 0;
    if (size === 0) return refuse(`tensor ${name} has dtype ${JSON.stringify(dtype)}; F32, F16 and BF16 are read`);
    if (!isCounts(shape) || !isCounts(offsets) || offsets.length !== 2) return refuse(`tensor ${name} has no valid shape and data_offsets`);
    const count = shape.reduce((a, b) => a * b, 1);
    const [from, to] = [offsets[0] ?? 0, offsets[1] ?? 0];
    if (to - from !== count * size || 8 + headerBytes + to > bytes.length)
      return refuse(`tensor ${name} of shape [${shape.join(", ")}] does not fit its bytes ${from} to ${to} in a file of ${bytes.length}`);
    tensors.set(name, { name, shape, data: widen(bytes.subarray(8 + headerBytes + from, 8 + headerBytes + to), dtype as string, count) });
  }
  return tensors;
}

function isCounts(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((v) => Number.isSafeInteger(v) && v >= 0);
}

function widen(bytes: Uint8Array, dtype: string, count: number): Float32Array {
  // A copy, never a view: a Buffer's slice would share its pool, whose offset need not be a multiple of 4.
  const own = new Uint8Array(bytes).buffer;
  if (dtype === "F32") return new Float32Array(own);
  const halves = new Uint16Array(own);
  if (dtype === "BF16") return new Float32Array(Uint32Array.from(halves, (h) => h << 16).buffer);
  const out = new Float32Array(count);
  halves.forEach((h, i) => {
    const exponent = (h >> 10) & 31;
    const fraction = h & 1023;
    const size =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 31
          ? fraction === 0
            ? Infinity
            : Number.NaN
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    out[i] = h & 0x8000 ? -size : size;
  });
  return out;
}
