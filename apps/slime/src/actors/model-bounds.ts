import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { SlimeError } from "@slime/core";

/** What requests to any engine of a model must keep to. */
export interface ModelBounds {
  readonly vocabularySize: number;
  /** Prompt and answer together; infinite where the model does not say. */
  readonly positions: number;
}

/**
 * Reads them from `config.json` of a Hugging Face directory, of whatever architecture; a model of text and images says it of its text part.
 * @throws `file.missing`, `checkpoint.invalid`.
 */
export async function modelBounds(directory: string): Promise<ModelBounds> {
  const path = join(directory, "config.json");
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new SlimeError(
      "file.missing",
      `cannot read ${path}: an engine's model is a Hugging Face directory`,
      { path, wanted: "config.json" },
      { cause },
    );
  });
  const fields = objectOf(parsed(text));
  const part = objectOf(fields["text_config"]);
  const number = (name: string) => [fields[name], part[name]].find((value) => typeof value === "number");
  const vocabularySize = number("vocab_size");
  if (vocabularySize === undefined)
    throw new SlimeError("checkpoint.invalid", `${path} says no vocab_size`, { path, reason: "no vocab_size" });
  return { vocabularySize, positions: number("max_position_embeddings") ?? Number.POSITIVE_INFINITY };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}
