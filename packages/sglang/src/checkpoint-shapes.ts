import { open, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { SlimeError } from "@slime/core";

/** The shape of every tensor of a checkpoint, by its Hugging Face name. */
export type TensorShapes = ReadonlyMap<string, readonly number[]>;

/** Largest header of a safetensors file, in bytes; the format's own bound. */
const headerBytesMax = 100_000_000;

/** Most files of one checkpoint: 671 billion parameters come in 163. */
const filesMax = 4_096;

/**
 * The shapes that a model directory holds, from the headers of its safetensors files; not a byte of weights is read.
 * @throws `checkpoint.invalid` when there are none or one is broken, `file.missing` when the directory is.
 */
export async function checkpointShapes(directory: string): Promise<TensorShapes> {
  const files = await safetensorsFiles(directory);
  const shapes = new Map<string, readonly number[]>();
  for (const file of files) for (const [name, shape] of await headerShapes(join(directory, file))) shapes.set(name, shape);
  return shapes;
}

/** The model's embedding and head are one matrix: then a checkpoint may have `lm_head.weight` or not. */
export async function hasTiedHead(directory: string): Promise<boolean> {
  const path = join(directory, "config.json");
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new SlimeError(
      "file.missing",
      `${path} is missing: ${directory} must be a model directory`,
      { path, wanted: "config.json" },
      { cause },
    );
  });
  try {
    return (JSON.parse(text) as { readonly tie_word_embeddings?: unknown } | null)?.tie_word_embeddings === true;
  } catch (cause) {
    throw new SlimeError("checkpoint.invalid", `${path} is not JSON`, { path, reason: "not JSON" }, { cause });
  }
}

/** Longest list of problems shown; a checkpoint of another shape has hundreds. */
const problemsShown = 8;

/**
 * What keeps `given` weights from being those of a model: names it does not have (a server accepts them and loads nothing), names that are
 * missing (it keeps the old ones), other shapes (it dies). Null: nothing.
 */
export function shapeProblem(model: TensorShapes, given: TensorShapes, tiedHead: boolean): string | null {
  const optional = (name: string) => (tiedHead && name === "lm_head.weight") || name.endsWith(".rotary_emb.inv_freq");
  const problems: string[] = [];
  for (const [name, shape] of given) {
    const wanted = model.get(name);
    if (wanted === undefined && !optional(name)) problems.push(`the model has no ${name}`);
    else if (wanted !== undefined && !equal(wanted, shape))
      problems.push(`${name} is [${shape.join(", ")}], the model's [${wanted.join(", ")}]`);
  }
  for (const name of model.keys()) if (!given.has(name) && !optional(name)) problems.push(`${name} is missing`);
  if (problems.length === 0) return null;
  const rest = problems.length - problemsShown;
  return problems.slice(0, problemsShown).join("; ") + (rest > 0 ? `; and ${rest} more` : "");
}

function equal(left: readonly number[], right: readonly number[]): boolean {
  return left.length === right.length && left.every((size, i) => size === right[i]);
}

async function safetensorsFiles(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory).catch((cause: unknown) => {
    throw new SlimeError(
      "file.missing",
      `${directory} is no directory of a model`,
      { path: directory, wanted: "a model directory" },
      { cause },
    );
  });
  const files = entries.filter((name) => name.endsWith(".safetensors")).sort();
  const reason =
    files.length === 0
      ? "it holds no .safetensors file, so the shapes of its tensors cannot be checked"
      : files.length > filesMax
        ? `it holds more than ${filesMax} .safetensors files`
        : null;
  if (reason !== null) throw new SlimeError("checkpoint.invalid", `${directory}: ${reason}`, { path: directory, reason });
  return files;
}

async function headerShapes(path: string): Promise<TensorShapes> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    const head = Buffer.alloc(8);
    await file.read(head, 0, 8, 0);
    const bytes = size < 8 ? -1 : Number(head.readBigUInt64LE());
    if (bytes < 0 || bytes > headerBytesMax || 8 + bytes > size) throw broken(path, "its header is cut off");
    const text = Buffer.alloc(bytes);
    await file.read(text, 0, bytes, 8);
    return parseHeader(path, text.toString("utf8"), size - 8 - bytes);
  } finally {
    await file.close();
  }
}

function parseHeader(path: string, text: string, dataBytes: number): TensorShapes {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (cause) {
    throw broken(path, "its header is not JSON", cause);
  }
  if (typeof header !== "object" || header === null) throw broken(path, "its header is no object");
  const shapes = new Map<string, readonly number[]>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { shape, data_offsets: offsets } = (entry ?? {}) as { readonly shape?: unknown; readonly data_offsets?: unknown };
    if (!isCounts(shape) || !isCounts(offsets) || offsets.length !== 2) throw broken(path, `tensor ${name} has no shape or no place`);
    if ((offsets[1] ?? 0) > dataBytes) throw broken(path, `the file is cut off within tensor ${name}`);
    shapes.set(name, shape);
  }
  return shapes;
}

function broken(path: string, reason: string, cause?: unknown): SlimeError {
  return new SlimeError("checkpoint.invalid", `${path}: ${reason}`, { path, reason }, cause === undefined ? {} : { cause });
}

function isCounts(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}
