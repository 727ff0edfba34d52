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

/** Scored beside what is sampled: a larger model reads faster than it writes. */
const passages = [
  `The harbour master kept two ledgers. In the first, bound in green cloth, he wrote down every ship that came in: its name, its master,
where it had been and what it carried. In the second, which nobody else had ever opened, he wrote down the ships that had not come. Some of
them were late, and he moved them to the green ledger when their sails showed behind the point. Others stayed where they were, year after
year, with a date beside them and nothing after it. When he was asked why he took the trouble, he said that a list of arrivals is only half
of the truth about a harbour, and that somebody ought to keep the other half.

One evening in October a boy of about nine came up the stairs and asked whether the Marianne was in the second book. She was, on page 41,
between a collier from the north and a yacht that had belonged to a dentist. The boy looked at the line for a long time. "Then you are
still waiting for her," he said. The harbour master said that he was. "Good," said the boy, and went down again, two steps at a time.

def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2

Water boils at 100 degrees Celsius at sea level, at about 93 in Denver, and at 71 on the summit of Everest, where an egg never gets hard.`,
];

/** Of models with all of ASCII and nothing else. */
const plain = <T extends string | readonly { readonly content: string }[]>(value: T): boolean =>
  typeof value === "string" ? /^[\n\x20-\x7e]*$/.test(value) : value.every(({ content }) => plain(content));

describe.each([
  {
    name: "a tiny random Qwen3",
    model: models.tinyQwen3,
    sampledPerChat: 130,
    asked: { chats: chats.filter(plain), texts: texts.filter(plain) },
  },
  { name: "SmolLM2-135M-Instruct", model: models.smollm2, sampledPerChat: 20, asked: { chats, texts } },
])(`oracle: $name by SGLang ${sglang}, transformers and the embedded engine`, ({ model, sampledPerChat, asked }) => {
  let server: RealServer;
  let engine: Engine;
  let sequences: { readonly ids: readonly number[]; readonly promptTokens: number; readonly sampled: readonly number[] }[];
  let oracle: OracleAnswers;

  beforeAll(async () => {
    const codec = await loadPromptCodec(model);
    server = await startRealServer({ model, logs });
    engine = new HttpEngine(server.url);
    const sampled = await Promise.all(
      asked.chats.map(async (messages, at) => {
        const input_ids = codec.encode(messages);
        const params = { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: sampledPerChat, ignore_eos: true };
        const request = { rid: `oracle-${at}`, input_ids, sampling_params: params, return_logprob: true };
        const { outputIds, outputLogProbs } = await engine.generate(request, { timeoutMs: callMs });
        return { ids: [...input_ids, ...outputIds], promptTokens: input_ids.length, sampled: outputLogProbs };
      }),
    );
    const read = passages.map((text) => codec.encode(text)).map((ids) => ({ ids, promptTokens: ids.length, sampled: [] }));
    sequences = [...sampled, ...read];
    oracle = await askTransformers(model, { sequences: sequences.map(({ ids }) => ids), ...asked });
  });
  afterAll(async () => {
    await engine?.close();
    await server?.[Symbol.asyncDispose]();
  });

  it("SGLang's log-probs as sampled are transformers'", () => {
    const difference = sequences.map(({ sampled, promptTokens }, at) => furthest(sampled, oracle.log_probs[at]?.slice(promptTokens - 1)));
    expect(sequences.reduce((sum, { sampled }) => sum + sampled.length, 0)).toBe(sampledPerChat * asked.chats.length);
    expect(Math.max(...difference)).toBeLessThanOrEqual(differenceMax);
  });

  it("SGLang's log-probs as scored are transformers', prompts included", async () => {
    expect(sequences.reduce((sum, { ids }) => sum + ids.length - 1, 0)).toBeGreaterThanOrEqual(tokensMin);
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
