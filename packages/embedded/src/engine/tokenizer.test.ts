import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { GrowingText, readTokenizer } from "./tokenizer.js";

const golden = fileURLToPath(new URL("../../../../test/golden/byte-level-bpe", import.meta.url));
const { texts } = JSON.parse(readFileSync(join(golden, "answers.json"), "utf8")) as {
  readonly texts: readonly { readonly text: string; readonly ids: readonly number[]; readonly decodedWithoutSpecial: string }[];
};

async function tokenizerOf(directory: string) {
  const tokenizer = await readTokenizer(directory);
  if (tokenizer === null) throw new RangeError("the golden directory has a tokenizer");
  return tokenizer;
}

describe("readTokenizer", () => {
  it("gives the ids and texts of Hugging Face transformers", async () => {
    const tokenizer = await tokenizerOf(golden);
    for (const { text, ids, decodedWithoutSpecial } of texts) {
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(ids);
      expect(tokenizer.decode(ids, true)).toBe(decodedWithoutSpecial);
    }
  });
});

describe("GrowingText", () => {
  it("grows token by token into the whole text, and never shows half a character", async () => {
    const tokenizer = await tokenizerOf(golden);
    for (const skipSpecialTokens of [true, false]) {
      for (const { ids, text, decodedWithoutSpecial } of texts) {
        const growing = new GrowingText(tokenizer, skipSpecialTokens);
        for (let count = 1; count <= ids.length; count++) {
          const before = growing.text;
          growing.extend(ids.slice(0, count));
          expect(growing.text.startsWith(before)).toBe(true);
          expect(growing.text).not.toContain("\ufffd");
        }
        expect(growing.text).toBe(skipSpecialTokens ? decodedWithoutSpecial : text);
      }
    }
  });

  it("does not wait for ever for bytes that are no character", async () => {
    const tokenizer = await tokenizerOf(golden);
    const half = tokenizer.encode("é").slice(0, 1);
    const growing = new GrowingText(tokenizer, true);
    growing.extend(Array.from({ length: 40 }, () => half[0] ?? 0));
    expect(growing.text).toHaveLength(40);
  });
});
