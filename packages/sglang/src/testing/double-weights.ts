import { open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { checkpointShapes, type TensorShapes } from "../checkpoint-shapes.js";
import { Fnv1a64 } from "../checksum.js";
import { seedOf } from "./double-model.js";

/** What the double takes for one payload of `serialized_named_tensors`, in base64 as JSON: it decodes no pickles. */
export interface DoublePayload {
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[]; readonly sum: string }[];
}

/** A double's weights: a sum for each tensor of its model. */
export class DoubleWeights {
  readonly shapes: TensorShapes;
  #sums: ReadonlyMap<string, string>;
  #seed: number;

  private constructor(shapes: TensorShapes, sums: ReadonlyMap<string, string>) {
    this.shapes = shapes;
    this.#sums = sums;
    this.#seed = seedOf(sums);
  }

  static async load(directory: string): Promise<DoubleWeights> {
    return new DoubleWeights(await checkpointShapes(directory), await directorySums(directory));
  }

  /** Decides every number the double answers with. */
  get seed(): number {
    return this.#seed;
  }

  /** Loads tensors as SGLang does: unknown names are passed over without a word. @returns the name of a tensor whose shape is not the model's. */
  put(tensors: DoublePayload["tensors"]): string | null {
    const sums = new Map(this.#sums);
    for (const { name, shape, sum } of tensors) {
      const wanted = this.shapes.get(name);
      if (wanted === undefined) continue;
      if (wanted.join() !== shape.join()) return name;
      sums.set(name, sum);
    }
    this.#sums = sums;
    this.#seed = seedOf(sums);
    return null;
  }

  /** Memory came back without what was in it. */
  forget(): void {
    this.#seed = 0;
  }
}

/** Sums of the bytes of every tensor of a checkpoint. */
export async function directoryTensors(directory: string): Promise<DoublePayload["tensors"]> {
  const shapes = await checkpointShapes(directory);
  const sums = await directorySums(directory);
  return [...shapes].map(([name, shape]) => ({ name, shape, sum: sums.get(name) ?? "" }));
}

async function directorySums(directory: string): Promise<ReadonlyMap<string, string>> {
  const sums = new Map<string, string>();
  for (const file of (await readdir(directory)).filter((name) => name.endsWith(".safetensors"))) {
    const bytes = await readFile(join(directory, file));
    const head = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.subarray(8, 8 + head).toString("utf8")) as Record<
      string,
      { readonly data_offsets: readonly [number, number] }
    >;
    for (const [name, { data_offsets }] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      sums.set(name, sumOf(bytes.subarray(8 + head + data_offsets[0], 8 + head + data_offsets[1])));
    }
  }
  return sums;
}

export function sumOf(bytes: Uint8Array): string {
  const sum = new Fnv1a64();
  sum.add(bytes);
  return sum.hex;
}

/** Bytes [from, to) of a file. */
export async function fileRange(path: string, from: number, to: number): Promise<Buffer> {
  const file = await open(path, "r");
  try {
    const bytes = Buffer.alloc(to - from);
    await file.read(bytes, 0, bytes.length, from);
    return bytes;
  } finally {
    await file.close();
  }
}
