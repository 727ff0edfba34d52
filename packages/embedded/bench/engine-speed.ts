/**
 * How fast the engine is on a model of SmolLM2-135M's shape (30 layers, hidden 576, vocabulary 49,152): a prompt read, one answer, many
 * answers at once. Weights are equal numbers: arithmetic takes as long with any. Prints one JSON line of tokens per second of this process's
 * CPU time, best of the rounds, so that other work on the machine counts little. Arguments: rounds.
 */
import { type ModelConfig, parameterLayout, parseModelConfig, startEmbeddedEngine } from "@slime/embedded";

const [rounds = 3] = process.argv.slice(2).map(Number);
const config: ModelConfig = parseModelConfig(
  {
    model_type: "llama",
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    vocab_size: 49_152,
    rope_theta: 100_000,
    max_position_embeddings: 8192,
    tie_word_embeddings: true,
  },
  "SmolLM2-135M",
);

async function main(): Promise<void> {
  const weights = new Float32Array(parameterLayout(config).count).fill(0.01);
  await using running = await startEmbeddedEngine({ model: { kind: "given", config, weights, tokenizer: null } });
  const ask = async (promptTokens: number, answerTokens: number, temperature: number): Promise<void> => {
    const input_ids = Array.from({ length: promptTokens }, (_, i) => (i * 7919) % config.vocabSize);
    const sampling_params = { max_new_tokens: answerTokens, ignore_eos: true, temperature, top_p: 0.9, top_k: 50 };
    const reply = await fetch(`${running.url}/generate`, { method: "POST", body: JSON.stringify({ input_ids, sampling_params }) });
    if (!reply.ok) throw new Error(await reply.text());
    await reply.arrayBuffer();
  };
  const cases: Readonly<Record<string, readonly [number, () => Promise<unknown>]>> = {
    "prompt of 256": [256, () => ask(256, 1, 0)],
    "1 answer, greedy": [32, () => ask(1, 32, 0)],
    "1 answer, top_p 0.9 and top_k 50": [32, () => ask(1, 32, 1)],
    "16 answers, top_p 0.9 and top_k 50": [16 * 16, () => Promise.all(Array.from({ length: 16 }, () => ask(1, 16, 1)))],
  };
  const best: Record<string, number> = {};
  for (let round = 0; round < rounds; round++) {
    for (const [name, [tokens, work]] of Object.entries(cases)) {
      const before = process.cpuUsage();
      await work();
      const { user, system } = process.cpuUsage(before);
      best[name] = Math.max(best[name] ?? 0, Math.round((tokens * 1e7) / (user + system)) / 10);
    }
  }
  process.stdout.write(`${JSON.stringify({ tokensPerCpuSecond: best, rssMb: Math.round(process.memoryUsage().rss / 1e6) })}\n`);
}

await main();
