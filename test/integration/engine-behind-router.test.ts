import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GenerateRequest } from "@slime/backend";
import { initialWeights, type ModelConfig, startEmbeddedEngine, writeHfCheckpoint } from "@slime/embedded";
import { HttpEngine, httpRouter, startRouter } from "@slime/router";
import { expect, it } from "vitest";

const config: ModelConfig = {
  vocabSize: 26,
  hiddenSize: 16,
  intermediateSize: 24,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 8,
  qkNorm: true,
  ropeTheta: 10_000,
  ropeScaling: null,
  normEps: 1e-6,
  tiedHead: true,
  positionsMax: 512,
  bosTokenId: null,
  eosTokenIds: [0],
  initStd: 0.3,
};
const request = (rid: string): GenerateRequest => ({
  rid,
  input_ids: [3, 1, 4],
  return_logprob: true,
  sampling_params: { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: 400, ignore_eos: true, sampling_seed: 7 },
});

it("requests through the router survive a push to two engines, and say which tokens came from which weights", async () => {
  const root = await mkdtemp(join(tmpdir(), "push-"));
  const model = { kind: "given", config, weights: initialWeights(config, 1), tokenizer: null } as const;
  const router = await startRouter();
  const engines = await Promise.all([startEmbeddedEngine({ model }), startEmbeddedEngine({ model })]);
  const driven = httpRouter(router.url);
  const clients = engines.map(({ url }) => new HttpEngine(url));
  const front = new HttpEngine(router.url);
  try {
    for (const { url } of engines) await driven.add(url, { fenced: true });
    for (const { url } of engines) await driven.open(url, 0);
    await writeHfCheckpoint(join(root, "hf"), config, initialWeights(config, 2), null);

    let started = 0;
    const begun = new Promise<void>((resolve) => {
      const onTokens = () => void (++started === 8 && resolve());
      for (let i = 0; i < 8; i++) running.push(front.generate(request(`r${i}`), { timeoutMs: 30_000, onTokens: once(onTokens) }));
    });
    await begun;
    expect(engines.map(({ engine }) => engine.scheduler.running)).toEqual([4, 4]);
    for (const [i, client] of clients.entries()) {
      const url = engines[i]?.url ?? "";
      await driven.fence(url);
      await client.pause("retract");
    }
    for (const [i, client] of clients.entries()) {
      const url = engines[i]?.url ?? "";
      await client.updateWeights({ version: 1, source: { kind: "directory", path: join(root, "hf") } });
      await client.resume();
      await driven.open(url, 1);
    }
    const results = await Promise.all(running);
    for (const result of results) {
      expect(result.outputIds).toHaveLength(400);
      expect(result.weightSpans.map(({ version, mixed }) => [version, mixed])).toEqual([
        [0, false],
        [1, false],
      ]);
      expect(result.weightVersion).toBe("1");
      const from = result.weightSpans[1]?.from ?? 0;
      const scored = await front.generate(
        {
          ...request("score"),
          input_ids: [3, 1, 4, ...result.outputIds],
          logprob_start_len: 0,
          sampling_params: { ...request("").sampling_params, max_new_tokens: 0 },
        },
        { timeoutMs: 30_000 },
      );
      expect(scored.inputLogProbs.slice(3 + from)).toEqual(result.outputLogProbs.slice(from));
    }
    expect((await driven.stats()).failures).toBe(0);
  } finally {
    await Promise.all([front.close(), driven.close(), ...clients.map((client) => client.close())]);
    await Promise.all([router.close(), ...engines.map((engine) => engine.close())]);
    await rm(root, { recursive: true });
  }
});

const running: ReturnType<HttpEngine["generate"]>[] = [];

function once(run: () => void): () => void {
  let ran = false;
  return () => {
    if (!ran) run();
    ran = true;
  };
}
