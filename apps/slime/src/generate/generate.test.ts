import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SlimeError, systemClock } from "@slime/core";
import { loadPromptCodec } from "@slime/data";
import { startEmbeddedEngine, writeHfCheckpoint } from "@slime/embedded";
import { roughWeights, tinyConfig, tinyLlamaConfig } from "@slime/embedded/testing";
import { httpRouter, startRouter } from "@slime/router";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runGenerate } from "./run-generate.js";
import type { GenerateFlags } from "./settings.js";

const golden = fileURLToPath(new URL("../../../../test/golden/byte-level-bpe", import.meta.url));
const root = mkdtempSync(join(tmpdir(), "slime-generate-test-"));
afterAll(() => rmSync(root, { recursive: true }));

const size = { vocabSize: 512, positionsMax: 256, eosTokenIds: [2] };
const models = [
  ["Qwen3", tinyConfig(size)],
  ["Llama", tinyLlamaConfig(size)],
] as const;
const llama = join(root, "Llama");

beforeAll(async () => {
  for (const [name, config] of models) {
    const directory = join(root, name);
    await writeHfCheckpoint(directory, config, roughWeights(config, 3), null);
    for (const file of ["tokenizer.json", "tokenizer_config.json"]) await copyFile(join(golden, file), join(directory, file));
  }
});

const defaults: GenerateFlags = { temperature: 0, topP: 1, topK: -1, n: 1, timeoutSecs: 60, maxNewTokens: 12 };

async function run(
  flags: Partial<GenerateFlags>,
  more: { readonly stdin?: string; readonly terminal?: boolean; readonly signal?: AbortSignal } = {},
) {
  const written: string[] = [];
  await runGenerate({ ...defaults, ...flags }, [], {
    stdin: Object.assign(textStream(more.stdin ?? ""), { isTTY: more.stdin === undefined }),
    write: (text) => written.push(text),
    terminal: more.terminal ?? false,
    status: null,
    clock: systemClock,
    signal: more.signal ?? new AbortController().signal,
  });
  return written;
}

async function* textStream(text: string) {
  yield Buffer.from(text);
}

interface JsonAnswer {
  readonly promptIndex: number;
  readonly answerIndex: number;
  readonly promptText: string;
  readonly promptIds: readonly number[];
  readonly text: string;
  readonly outputIds: readonly number[];
  readonly outputLogProbs: readonly number[];
}

async function runJson(flags: Partial<GenerateFlags>, stdin?: string): Promise<readonly JsonAnswer[]> {
  const written = await run({ ...flags, json: true }, stdin === undefined ? {} : { stdin });
  return written
    .join("")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as JsonAnswer);
}

describe.each(models)("slime generate on a tiny %s", (name) => {
  const hfCheckpoint = join(root, name);

  it("answers a chat: the template's ids, an answer with log-probs, the same text as it streams", async () => {
    const codec = await loadPromptCodec(hfCheckpoint);
    const [answer] = await runJson({ hfCheckpoint, prompt: ["What is the capital?"], system: "Be brief." });
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "What is the capital?" },
    ];
    expect(answer).toMatchObject({ promptText: codec.render(messages, null), promptIds: codec.encode(messages) });
    expect(answer?.outputLogProbs).toHaveLength(answer?.outputIds.length ?? -1);
    expect(answer?.outputLogProbs.every((logProb) => logProb <= 0)).toBe(true);
    const written = await run({ hfCheckpoint, prompt: ["What is the capital?"], system: "Be brief." });
    expect(written.join("")).toBe(`${answer?.text}\n`);
    expect(written.length).toBeGreaterThan(2);
  });

  it("continues text as it is with --no-chat, from standard input too", async () => {
    const codec = await loadPromptCodec(hfCheckpoint);
    const [given] = await runJson({ hfCheckpoint, prompt: ["The capital"], chat: false });
    const [read] = await runJson({ hfCheckpoint, chat: false }, "The capital\n");
    expect(given?.promptIds).toEqual(codec.encode("The capital"));
    expect(read).toEqual(given);
  });

  it("draws several answers by seed, in order, under headings", async () => {
    const flags = { hfCheckpoint, prompt: ["One?", "Two?"], n: 2, temperature: 1, seed: 7 };
    const answers = await runJson(flags);
    expect(answers.map(({ promptIndex, answerIndex }) => [promptIndex, answerIndex])).toEqual([
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ]);
    expect(answers[0]?.outputIds).not.toEqual(answers[1]?.outputIds);
    expect(await runJson(flags)).toEqual(answers);
    expect((await runJson({ ...flags, prompt: ["Two?"], n: 1, seed: 8 }))[0]?.outputIds).toEqual(answers[3]?.outputIds);
    const [a, b, c, d] = answers.map(({ text }) => text);
    expect((await run(flags)).join("")).toBe(`[1.1] One?\n${a}\n\n[1.2] One?\n${b}\n\n[2.1] Two?\n${c}\n\n[2.2] Two?\n${d}\n`);
  });
});

describe("slime generate", () => {
  it("reads many prompts of a file, chats among them", async () => {
    const file = join(root, "questions.jsonl");
    writeFileSync(file, '{"q": "One?"}\n{"q": [{"role": "user", "content": "Two?"}]}\n');
    const answers = await runJson({ hfCheckpoint: llama, promptFile: file, inputKey: "q" });
    expect(answers.map(({ promptText }) => promptText.match(/user\n(.*?)</)?.[1])).toEqual(["One?", "Two?"]);
    const text = join(root, "question.txt");
    writeFileSync(text, "One?\n");
    expect((await runJson({ hfCheckpoint: llama, promptFile: text }))[0]?.outputIds).toEqual(answers[0]?.outputIds);
  });

  it("ends an answer before a stop text and never shows its beginning", async () => {
    const flags = { hfCheckpoint: llama, prompt: ["What is the capital?"], maxNewTokens: 40 };
    const [free] = await runJson(flags);
    const stop = [...(free?.text ?? "")].slice(6, 10).join("");
    const wanted = free?.text.slice(0, free.text.indexOf(stop)) ?? "";
    expect((await run({ ...flags, stop: [stop] })).join("")).toBe(`${wanted}\n`);
  });

  it("asks an engine that runs, whose directory gives tokenizer and template; without one, text goes as it is", async () => {
    await using engine = await startEmbeddedEngine({ model: { kind: "directory", path: llama } });
    const [direct] = await runJson({ hfCheckpoint: llama, prompt: ["One?"] });
    expect(await runJson({ url: engine.url, prompt: ["One?"] })).toEqual([direct]);
    const config = tinyLlamaConfig(size);
    const tokenizer = {
      encode: (text: string) => Array.from(text, (c) => c.charCodeAt(0)),
      decode: (ids: readonly number[]) => ids.join(" "),
    };
    await using bare = await startEmbeddedEngine({ model: { kind: "given", config, weights: roughWeights(config, 3), tokenizer } });
    const [raw] = await runJson({ url: bare.url, prompt: ["One?"] });
    expect(raw).toMatchObject({ promptText: "One?", promptIds: null });
    await expect(run({ url: bare.url, prompt: ["One?"], chat: true })).rejects.toThrow(/add --hf-checkpoint DIR, or --no-chat/);
  });

  it("asks through a router as well", async () => {
    await using engine = await startEmbeddedEngine({ model: { kind: "directory", path: llama } });
    const router = await startRouter();
    try {
      const driven = httpRouter(router.url);
      await driven.add(engine.url, { fenced: false });
      const [direct] = await runJson({ hfCheckpoint: llama, prompt: ["One?"] });
      expect(await runJson({ url: router.url, prompt: ["One?"] })).toEqual([direct]);
      expect((await run({ url: router.url, prompt: ["One?"] })).join("")).toBe(`${direct?.text}\n`);
    } finally {
      await router.close();
    }
  });

  it("stops at once and ends what it started", async () => {
    const stop = new AbortController();
    await using engine = await startEmbeddedEngine({ model: { kind: "directory", path: llama } });
    const ended = runGenerate({ ...defaults, url: engine.url, prompt: ["One?"], temperature: 1, chat: false, maxNewTokens: 200 }, [], {
      stdin: Object.assign(textStream(""), { isTTY: true }),
      write: () => stop.abort(new SlimeError("call.cancelled", "stopped", { what: "command" })),
      terminal: true,
      status: null,
      clock: systemClock,
      signal: stop.signal,
    });
    await expect(ended).rejects.toThrow("stopped");
    await engine.engine.flush(5_000);
  });

  it.each<[string, Partial<GenerateFlags>, RegExp]>([
    ["no model", { prompt: ["x"] }, /--hf-checkpoint is missing: name the model's directory.*--url/],
    ["no prompt", { hfCheckpoint: llama }, /--prompt "…".*--prompt-file FILE.*standard input/],
    ["an empty prompt", { hfCheckpoint: llama, prompt: ["a", ""] }, /prompt 2 is empty/],
    ["no such file", { hfCheckpoint: llama, promptFile: join(root, "none.txt") }, /\[file.missing\].*none.txt cannot be read/],
    ["equal answers", { hfCheckpoint: llama, prompt: ["x"], n: 3 }, /add --temperature 0.8/],
    ["a seed without chance", { hfCheckpoint: llama, prompt: ["x"], seed: 3 }, /--seed changes nothing at --temperature 0/],
    ["a system message without a chat", { hfCheckpoint: llama, prompt: ["x"], system: "s", chat: false }, /leave --no-chat out/],
    ["a prompt that is too long", { hfCheckpoint: llama, prompt: ["x".repeat(300)] }, /prompt 1 has \d+ tokens, the model holds 256/],
    ["an answer that is too long", { hfCheckpoint: llama, prompt: ["x"], maxNewTokens: 250 }, /lower --max-new-tokens/],
    [
      "SGLang's flags for the embedded engine",
      { hfCheckpoint: llama, prompt: ["x"], numGpus: 1 },
      /--num-gpus: for SGLang; add --rollout-backend sglang/,
    ],
    ["nobody at the address", { url: "127.0.0.1:1", prompt: ["x"] }, /--url http:\/\/127.0.0.1:1: no engine or router answers there/],
    ["no address", { url: "::", prompt: ["x"] }, /write http:\/\/127.0.0.1:30000/],
  ])("says how to mend %s", async (_, flags, message) => {
    await expect(run(flags)).rejects.toThrow(message);
  });

  it("says that a directory has no weights, no template, one that refuses, or tokens that its model does not know", async () => {
    const directory = mkdtempSync(join(root, "m-"));
    for (const file of ["config.json", "tokenizer.json", "tokenizer_config.json"])
      writeFileSync(join(directory, file), readFileSync(join(llama, file)));
    await expect(run({ hfCheckpoint: directory, prompt: ["x"] })).rejects.toThrow(/has no weights \(model.safetensors/);
    const bare = mkdtempSync(join(root, "bare-"));
    for (const file of ["config.json", "model.safetensors", "tokenizer.json"])
      writeFileSync(join(bare, file), readFileSync(join(llama, file)));
    writeFileSync(join(bare, "tokenizer_config.json"), "{}");
    await expect(run({ hfCheckpoint: bare, prompt: ["x"], system: "s" })).rejects.toThrow(/has no chat template: leave --chat, --system/);
    expect((await runJson({ hfCheckpoint: bare, prompt: ["x"] }))[0]?.promptText).toBe("x");
    writeFileSync(join(bare, "chat_template.jinja"), "{{ raise_exception('no system message') }}");
    await expect(run({ hfCheckpoint: bare, prompt: ["x"] })).rejects.toThrow(
      /prompt 1: the model's chat template refuses it \(no system message\)/,
    );
    const small = join(root, "small");
    const config = tinyConfig({ ...size, vocabSize: 20 });
    await writeHfCheckpoint(small, config, roughWeights(config, 1), llama);
    await expect(run({ hfCheckpoint: small, prompt: ["x"] })).rejects.toThrow(
      /vocabulary 20 entries: tokenizer.json and config.json are of different models/,
    );
  });
});
