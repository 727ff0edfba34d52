import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { withUnicodeDigits } from "@slime/backend";
import { SlimeError } from "@slime/core";

/** Text to ids and back, as the engine needs it. */
export interface EngineTokenizer {
  readonly encode: (text: string) => readonly number[];
  readonly decode: (ids: readonly number[], skipSpecialTokens: boolean) => string;
}

/** Reads a Hugging Face tokenizer.json; null when the directory has none. @throws `checkpoint.invalid` for one that cannot be read. */
export async function readTokenizer(directory: string): Promise<EngineTokenizer | null> {
  const path = join(directory, "tokenizer.json");
  const json = await readJson(path);
  if (json === null) return null;
  const config = (await readJson(join(directory, "tokenizer_config.json"))) ?? {};
  try {
    const tokenizer = new Tokenizer(withUnicodeDigits(json), config);
    return {
      encode: (text) => tokenizer.encode(text).ids,
      decode: (ids, skipSpecialTokens) =>
        ids.length === 0 ? "" : tokenizer.decode([...ids], { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false }),
    };
  } catch (cause) {
    throw new SlimeError(
      "checkpoint.invalid",
      `${path} cannot be used as a tokenizer: ${cause instanceof Error ? cause.message : String(cause)}`,
      { path, reason: "tokenizer" },
      { cause },
    );
  }
}

async function readJson(path: string): Promise<object | null> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value;
  } catch (cause) {
    throw new SlimeError("checkpoint.invalid", `${path} is not JSON`, { path, reason: "not JSON" }, { cause });
  }
  throw new SlimeError("checkpoint.invalid", `${path} is not a JSON object`, { path, reason: "not an object" });
}

/** Ids that may wait for the rest of a character: more of them are no character's bytes, and are taken as they are. */
const pendingMax = 16;

/**
 * Text of a growing list of ids. Only the last few ids are decoded again at each step: a piece is taken when the text after it no
 * longer ends in a replacement character (a character split over several tokens).
 */
export class GrowingText {
  text = "";
  readonly #tokenizer: EngineTokenizer;
  readonly #skipSpecialTokens: boolean;
  #prefix = 0;
  #read = 0;

  constructor(tokenizer: EngineTokenizer, skipSpecialTokens: boolean) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = skipSpecialTokens;
  }

  /** Takes in the ids past those already read; returns the length of the text before them. */
  extend(ids: readonly number[]): number {
    const before = this.text.length;
    const known = this.#tokenizer.decode(ids.slice(this.#prefix, this.#read), this.#skipSpecialTokens);
    const grown = this.#tokenizer.decode(ids.slice(this.#prefix), this.#skipSpecialTokens);
    if (grown.length > known.length && (!grown.endsWith("\ufffd") || ids.length - this.#read > pendingMax)) {
      this.text += grown.slice(known.length);
      this.#prefix = this.#read;
      this.#read = ids.length;
    }
    return before;
  }
}
