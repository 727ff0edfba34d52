import type { Engine } from "@slime/backend";
import { loadPromptCodec } from "@slime/data";
import { startEmbeddedEngine } from "@slime/embedded";
import { HttpEngine } from "@slime/router";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { realEnv } from "./real-env.js";
import { logFolder, type RealServer, startRealServer } from "./real-server.js";
import { askTransformers, type OracleAnswers } from "./transformers-oracle.js";

const logs = logFolder();
const { models, sglang } = realEnv();
const differenceMax = 1e-4;
const tokensMin = 500;
const callMs = 80_000;

const user = (content: string) => ({ role: "user", content });
const chats = [
  [user("What is the capital of France?")],
  [user("What is 16 + 47? Answer with just the number.")],
  [{ role: "system", content: "You are a pirate." }, user("Who are you?"), { role: "assistant", content: "Arr!" }, user("Say it again.")],
  [user("Write a haiku about the sea, then one about code.")],
  [user("List 3 primes.\n\nThen stop.")],
  [user("Translate “good morning” into German, Spanish & 日本語 🙂")],
];
const texts = [
  "The year 2026, in 12 words.",
  "  two  spaces\tand a tab\n\nnew paragraph",
  "don't WON'T ‘quoted’ café naïve 東京 🙂👍🏽",
  "x = [1, 2]; y_0 += 3.14e-10 # ok",
];

/** Of models with all of ASCII and nothing else. */
const plain = <T extends string | readonly { readonly content: string }[]>(value: T): boolean =>
  typeof value === "string" ? /^[\n\x20-\x7e]*$/.test(value) : value.every(({ content }) => plain(content));

describe.each([
  { name: "a tiny random Qwen3", model: models.tinyQwen3, asked: { chats: chats.filter(plain), texts: texts.filter(plain) } },
  { name: "SmolLM2-135M-Instruct", model: models.smollm2, asked: { chats, texts } },
])(`oracle: $name by SGLang ${sglang}, transformers and the embedded engine`, ({ model, asked }) => {
  let server: RealServer;
  let engine: Engine;
  let sequences: { readonly ids: readonly number[]; readonly promptTokens: number; readonly sampled: readonly number[] }[];
  let oracle: OracleAnswers;

  beforeAll(async () => {
    const codec = await loadPromptCodec(model);
    server = await startRealServer({ model, logs });
    engine = new HttpEngine(server.url);
    const perChat = Math.ceil(tokensMin / asked.chats.length) + 8;
    sequences = await Promise.all(
      asked.chats.map(async (messages, at) => {
        const input_ids = codec.encode(messages);
        const params = { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: perChat, ignore_eos: true };
        const request = { rid: `oracle-${at}`, input_ids, sampling_params: params, return_logprob: true };
        const { outputIds, outputLogProbs } = await engine.generate(request, { timeoutMs: callMs });
        return { ids: [...input_ids, ...outputIds], promptTokens: input_ids.length, sampled: outputLogProbs };
      }),
    );
    oracle = await askTransformers(model, { sequences: sequences.map(({ ids }) => ids), ...asked });
  });
  afterAll(async () => {
    await engine?.close();
    await server?.[Symbol.asyncDispose]();
  });

  it("SGLang's log-probs as sampled are transformers'", () => {
    const difference = sequences.map(({ sampled, promptTokens }, at) => furthest(sampled, oracle.log_probs[at]?.slice(promptTokens - 1)));
    expect(sequences.reduce((sum, { sampled }) => sum + sampled.length, 0)).toBeGreaterThanOrEqual(tokensMin);
    expect(Math.max(...difference)).toBeLessThanOrEqual(differenceMax);
  });

  it("SGLang's log-probs as scored are transformers', prompts included", async () => {
    expect(await scoredDifference(engine, sequences, oracle)).toBeLessThanOrEqual(differenceMax);
  });

  it("the embedded engine's log-probs are transformers', prompts included", async () => {
    await using embedded = await startEmbeddedEngine({ model: { kind: "directory", path: model } });
    const client = new HttpEngine(embedded.url);
    try {
      expect(await scoredDifference(client, sequences, oracle)).toBeLessThanOrEqual(differenceMax);
    } finally {
      await client.close();
    }
  });

  it("chat template and tokenizer are transformers', there and back", async () => {
    const codec = await loadPromptCodec(model);
    expect(asked.chats.map((messages) => ({ text: codec.render(messages, null), ids: codec.encode(messages) }))).toEqual(oracle.chats);
    const read = asked.texts.map((text) => {
      const ids = codec.encode(text);
      return { ids, decoded: codec.decode(ids, { skipSpecialTokens: false }) };
    });
    expect(read).toEqual(oracle.texts);
    expect(read.map(({ decoded }) => decoded)).toEqual(asked.texts);
  });

  it("SGLang's own chat route answers what it answers to our ids", async () => {
    const messages = asked.chats[0] ?? [];
    const codec = await loadPromptCodec(model);
    const body = { model: "any", messages, temperature: 0, max_tokens: 16 };
    const reply = await fetch(`${server.url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(callMs),
    });
    const { choices, usage } = (await reply.json()) as {
      readonly choices: readonly { readonly message: { readonly content: string } }[];
      readonly usage: { readonly prompt_tokens: number };
    };
    const input_ids = codec.encode(messages);
    const params = { temperature: 0, top_p: 1, top_k: -1, max_new_tokens: 16 };
    const ours = await engine.generate({ rid: "chat", input_ids, sampling_params: params, return_logprob: false }, { timeoutMs: callMs });
    expect({ content: choices[0]?.message.content, tokens: usage.prompt_tokens }).toEqual({ content: ours.text, tokens: input_ids.length });
  });
});

/** Scores whole sequences and returns how far the furthest token is from the oracle's. */
async function scoredDifference(
  engine: Engine,
  sequences: readonly { readonly ids: readonly number[] }[],
  oracle: OracleAnswers,
): Promise<number> {
  let most = 0;
  for (const [at, { ids }] of sequences.entries()) {
    const params = { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: 0 };
    const request = { rid: `score-${at}`, input_ids: ids, sampling_params: params, return_logprob: true, logprob_start_len: 0 };
    const { inputLogProbs } = await engine.generate(request, { timeoutMs: callMs });
    most = Math.max(most, furthest(inputLogProbs.slice(1), oracle.log_probs[at]));
  }
  return most;
}

/** The largest difference; infinite where the lengths differ. */
function furthest(got: readonly (number | null)[], wanted: readonly number[] | undefined): number {
  if (wanted === undefined || got.length !== wanted.length) return Number.POSITIVE_INFINITY;
  return got.reduce<number>((most, value, i) => Math.max(most, Math.abs((value ?? Number.POSITIVE_INFINITY) - (wanted[i] ?? 0))), 0);
}
