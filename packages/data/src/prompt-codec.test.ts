import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { ChatMessage } from "@slime/backend";
import { afterAll, describe, expect, it } from "vitest";
import { loadPromptSet, openJsonlSource } from "./jsonl-source.js";
import { loadPromptCodec } from "./prompt-codec.js";

const sort = (name: string) => fileURLToPath(new URL(`../../../examples/sort/${name}`, import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "slime-codec-"));
afterAll(() => rmSync(directory, { recursive: true }));

/** A copy of the example's model directory with some files changed. */
function modelDirectory(files: Readonly<Record<string, unknown>>): string {
  const path = mkdtempSync(join(directory, "m-"));
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    if (!Object.hasOwn(files, name)) writeFileSync(join(path, name), readFileSync(sort(`model/${name}`)));
  for (const [name, value] of Object.entries(files))
    if (value !== null) writeFileSync(join(path, name), typeof value === "string" ? value : JSON.stringify(value));
  return path;
}

const config = JSON.parse(readFileSync(sort("model/tokenizer_config.json"), "utf8")) as Record<string, unknown>;

describe("loadPromptCodec", () => {
  it("encodes characters one by one, without special tokens of its own, and back", async () => {
    const codec = await loadPromptCodec(sort("model"));
    expect(codec.encode("4172=")).toEqual([8, 5, 11, 6, 14]);
    expect(codec.encode([{ role: "user", content: "41=" }])).toEqual([1, 8, 5, 14]);
    expect(codec.decode([5, 6, 8, 11, 2], { skipSpecialTokens: true })).toBe("1247");
    expect(codec.decode([5, 2], { skipSpecialTokens: false })).toBe("1<eos>");
    expect(codec.decode([], { skipSpecialTokens: true })).toBe("");
    expect(codec.encode("4x")).toEqual([8, 3]);
    expect(codec.hasTemplate).toBe(true);
  });

  it("renders with the model's own template: its file first, special tokens and more variables by name, tools, the generation prompt", async () => {
    const jinja =
      "{% if tools %}[{{ tools[0].name }}]{% endif %}{% for m in messages %}{{ m.role }}:{{ m.content }}|{% endfor %}{{ eos_token }}{{ mode }}{% if add_generation_prompt %}assistant:{% endif %}";
    const codec = await loadPromptCodec(modelDirectory({ "chat_template.jinja": jinja }), { chatTemplateKwargs: { mode: "!" } });
    expect(codec.render("hi", null)).toBe("user:hi|<eos>!assistant:");
    expect(
      codec.render(
        [
          { role: "system", content: "s" },
          { role: "user", content: "u" },
        ],
        [{ name: "calc" }],
      ),
    ).toBe("[calc]system:s|user:u|<eos>!assistant:");
  });

  it("adds the tokenizer's own special tokens to a text that is to be continued, and to nothing else", async () => {
    const tokenizer = JSON.parse(readFileSync(sort("model/tokenizer.json"), "utf8")) as Record<string, unknown>;
    const post_processor = {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<bos>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: { "<bos>": { id: "<bos>", ids: [1], tokens: ["<bos>"] } },
    };
    const codec = await loadPromptCodec(modelDirectory({ "tokenizer.json": { ...tokenizer, post_processor } }));
    expect(codec.encodeText("41=")).toEqual([1, 8, 5, 14]);
    expect(codec.encode("41=")).toEqual([8, 5, 14]);
  });

  it("picks a named template, the one for tools when there are tools", async () => {
    const named = [
      { name: "default", template: "plain" },
      { name: "tool_use", template: "tools" },
    ];
    const codec = await loadPromptCodec(
      modelDirectory({ "tokenizer_config.json": { ...config, chat_template: named, bos_token: { content: "<bos>" } } }),
    );
    expect([codec.render("x", null), codec.render("x", [{}])]).toEqual(["plain", "tools"]);
  });

  it("says which file is missing or wrong, and what a model without a template cannot do", async () => {
    await expect(loadPromptCodec(modelDirectory({ "tokenizer.json": null }))).rejects.toThrow(
      /\[file.missing\] .*tokenizer.json is missing: --hf-checkpoint/,
    );
    await expect(loadPromptCodec(modelDirectory({ "tokenizer.json": "{" }))).rejects.toThrow(
      /\[config.invalid\] .*tokenizer.json is not JSON/,
    );
    const { chat_template: _, ...bare } = config;
    const codec = await loadPromptCodec(modelDirectory({ "tokenizer_config.json": bare }));
    expect(codec.encode("41=")).toEqual([8, 5, 14]);
    expect(codec.hasTemplate).toBe(false);
    expect(() => codec.render("x", null)).toThrow("has no chat template");
  });

  it("a template that refuses a prompt is a bad line of the data", async () => {
    const path = join(directory, "bad.jsonl");
    writeFileSync(path, '{"prompt":"12="}\n');
    const codec = await loadPromptCodec(modelDirectory({ "chat_template.jinja": "{{ raise_exception('no system message') }}" }));
    await expect(
      openJsonlSource({ path, wanted: "--prompt-data", applyChatTemplate: true, codec, promptTokensMax: null, shuffle: false, seed: 0 }),
    ).rejects.toThrow(/bad.jsonl:1: the chat template fails on it \(no system message\)/);
  });
});

describe("a byte-level tokenizer and a chat template, as Hugging Face transformers reads them", () => {
  const golden = fileURLToPath(new URL("../../../test/golden/byte-level-bpe", import.meta.url));
  const answers = JSON.parse(readFileSync(join(golden, "answers.json"), "utf8")) as {
    readonly texts: readonly { readonly text: string; readonly ids: readonly number[]; readonly decodedWithoutSpecial: string }[];
    readonly chats: readonly { readonly messages: readonly ChatMessage[]; readonly text: string; readonly ids: readonly number[] }[];
  };

  it("gives its ids for every text, and the text back", async () => {
    const codec = await loadPromptCodec(golden);
    for (const { text, ids, decodedWithoutSpecial } of answers.texts) {
      expect(codec.encode(text), JSON.stringify(text)).toEqual(ids);
      expect(codec.decode(ids, { skipSpecialTokens: false })).toBe(text);
      expect(codec.decode(ids, { skipSpecialTokens: true })).toBe(decodedWithoutSpecial);
    }
  });

  it("renders and encodes its chats", async () => {
    const codec = await loadPromptCodec(golden);
    for (const { messages, text, ids } of answers.chats)
      expect({ text: codec.render(messages, null), ids: codec.encode(messages) }).toEqual({ text, ids });
  });
});

describe("examples/sort", () => {
  const load = async (name: string) =>
    loadPromptSet(name, {
      path: sort(`${name}.jsonl`),
      wanted: "test",
      applyChatTemplate: false,
      codec: await loadPromptCodec(sort("model")),
      promptTokensMax: 8,
    });

  it("train and held-out prompts are disjoint, many enough, and rightly labelled", async () => {
    const [train, heldOut] = [await load("train"), await load("heldout")];
    const trained = new Set(train.map((group) => group.prompt));
    expect(trained.size).toBe(9488);
    expect(new Set(heldOut.map((group) => group.prompt)).size).toBe(512);
    expect(heldOut.filter((group) => trained.has(group.prompt))).toEqual([]);
    for (const { prompt, label } of [...train, ...heldOut])
      expect(`${[...(label ?? "")].sort().join("")}=`).toBe(`${[...String(prompt).slice(0, 4)].sort().join("")}=`);
    for (const { label } of train) expect(label).toBe([...(label ?? "")].sort().join(""));
  });

  it("every prompt and answer is made of the model's own tokens", async () => {
    const codec = await loadPromptCodec(sort("model"));
    const shape = JSON.parse(readFileSync(sort("model/config.json"), "utf8")) as { vocab_size: number };
    for (const { prompt, label } of await load("heldout"))
      for (const id of [...codec.encode(prompt), ...codec.encode(label ?? "")]) expect(id > 3 && id < shape.vocab_size).toBe(true);
  });
});
