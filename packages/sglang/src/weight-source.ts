/** What a trainer laid out, checked against its announcement, cut into buckets, or written as a model directory. */
import { copyFile, mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { ExportedTensor, WeightUpdate } from "@slime/backend";
import { SlimeError } from "@slime/core";
import type { TensorShapes } from "./checkpoint-shapes.js";
import { Fnv1a64 } from "./checksum.js";

/** The export of one rank in shared memory. */
export type SharedWeights = Extract<WeightUpdate["source"], { readonly kind: "shared-memory" }>;

/** One post of tensors: a run of bytes of the export, and what lies in it. */
export interface WeightBucket {
  /** Bytes from the start of the export. */
  readonly from: number;
  readonly to: number;
  readonly tensors: readonly ExportedTensor[];
}

/** Bytes of one bucket: a server holds it beside its weights while it loads. A larger tensor has a bucket of its own. */
export const bucketBytesMax = 512 << 20;

const readBytes = 4 << 20;

/** Bytes of a tensor: single precision. */
export function tensorBytes({ shape }: Pick<ExportedTensor, "shape">): number {
  return shape.reduce((product, size) => product * size, 4);
}

/**
 * Cuts an export into runs of at most `bytesMax`, in the order of its bytes.
 * B1: every tensor lies in one bucket, once, within the bucket's bytes. B2: only a single tensor is more than `bytesMax`.
 */
export function bucketsOf(tensors: readonly ExportedTensor[], bytesMax: number = bucketBytesMax): readonly WeightBucket[] {
  const buckets: { from: number; to: number; tensors: ExportedTensor[] }[] = [];
  for (const tensor of [...tensors].sort((left, right) => left.offset - right.offset)) {
    const end = tensor.offset + tensorBytes(tensor);
    const last = buckets.at(-1);
    if (last === undefined || end - last.from > bytesMax) buckets.push({ from: tensor.offset, to: end, tensors: [tensor] });
    else {
      last.to = Math.max(last.to, end);
      last.tensors.push(tensor);
    }
  }
  return buckets;
}

/** The shapes that an export announces. */
export function exportShapes(tensors: readonly ExportedTensor[]): TensorShapes {
  return new Map(tensors.map(({ name, shape }) => [name, shape]));
}

/**
 * Reads the export once and holds it against its announcement: its length, its checksum, every tensor within it.
 * @returns what is wrong, or null.
 */
export async function exportProblem({ path, bytes, checksum, tensors }: SharedWeights): Promise<string | null> {
  const beyond = tensors.find((tensor) => tensor.offset < 0 || tensor.offset % 4 !== 0 || tensor.offset + tensorBytes(tensor) > bytes);
  if (beyond !== undefined) return `${beyond.name} does not lie within the ${bytes} bytes announced`;
  const size = await stat(path).then(
    (found) => found.size,
    () => null,
  );
  if (size === null) return `${path} is not there`;
  // A segment that is used again may be longer than what is in it now.
  if (size < bytes) return `${path} has ${size} bytes, ${bytes} were announced`;
  const found = await checksumOf(path, bytes);
  return found === checksum ? null : `${path} has checksum ${found}, ${checksum} was announced`;
}

async function checksumOf(path: string, bytes: number): Promise<string> {
  const sum = new Fnv1a64();
  const file = await open(path, "r");
  try {
    const block = Buffer.allocUnsafe(Math.min(readBytes, Math.max(1, bytes)));
    for (let at = 0; at < bytes; ) {
      const { bytesRead } = await file.read(block, 0, Math.min(block.length, bytes - at), at);
      if (bytesRead === 0) break;
      sum.add(block.subarray(0, bytesRead));
      at += bytesRead;
    }
    return sum.hex;
  } finally {
    await file.close();
  }
}

/**
 * Writes an export as a model directory: one safetensors file, and the configuration and tokenizer of `model`.
 * What was in `directory` is gone. @throws an I/O error, or what the disk says.
 */
export async function writeModelDirectory(directory: string, model: string, { path, tensors }: SharedWeights): Promise<void> {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(model))
    if (/\.(json|txt|model|jinja)$/.test(name) && !name.endsWith(".index.json")) await copyFile(join(model, name), join(directory, name));
  const source = await open(path, "r");
  const target = await open(join(directory, "model.safetensors"), "w", 0o600);
  try {
    await target.write(safetensorsHead(tensors));
    const block = Buffer.allocUnsafe(readBytes);
    for (const tensor of tensors) {
      const end = tensor.offset + tensorBytes(tensor);
      for (let at = tensor.offset; at < end; ) {
        const { bytesRead } = await source.read(block, 0, Math.min(block.length, end - at), at);
        if (bytesRead === 0) throw new SlimeError("file.missing", `${path} ends within ${tensor.name}`, { path, wanted: `${end} bytes` });
        await target.write(block, 0, bytesRead);
        at += bytesRead;
      }
    }
  } finally {
    await source.close();
    await target.close();
  }
}

/** Length and header of a safetensors file of these tensors, adjacent and in their order. */
function safetensorsHead(tensors: readonly ExportedTensor[]): Buffer {
  let at = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  for (const tensor of tensors) {
    const end = at + tensorBytes(tensor);
    header[tensor.name] = { dtype: "F32", shape: tensor.shape, data_offsets: [at, end] };
    at = end;
  }
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text]);
}
