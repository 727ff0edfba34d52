import type { GenerateRequest, GenerateResult } from "@slime/backend";
import { SlimeError, seededRandom, systemClock } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Generator, generate } from "./generation.js";
import { assemble, RolloutRunner } from "./runner.js";
import { Semaphore } from "./semaphore.js";

const sampling = { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: 6 };
const limits = {
  contextLength: 32,
  requestMsMax: 1_000,
  resumesMax: 3,
  backoff: { firstMs: 0, factor: 1, delayMsMax: 0, jitter: 0, triesMax: 3 },
};
const chance = { clock: systemClock, random: seededRandom(1) };
const never = new AbortController().signal;

/** Gives `sizes[k]` tokens in piece k, cut off by an abort unless `max_new_tokens` was reached; token values count on. */
function pieces(sizes: readonly number[], versions: readonly number[]): Generator & { readonly asked: GenerateRequest[] } {
  const asked: GenerateRequest[] = [];
  return {
    asked,
    async generate(request) {
      const at = asked.push(request) - 1;
      const count = Math.min(sizes[at] ?? 99, request.sampling_params.max_new_tokens);
      const full = count === request.sampling_params.max_new_tokens;
      const start = request.input_ids.length;
      return result(
        Array.from({ length: count }, (_, i) => start + i),
        versions[at] ?? 0,
        full ? { type: "length", length: count } : { type: "abort", message: "push" },
      );
    },
  };
}

function result(ids: readonly number[], version: number, finishReason: GenerateResult["finishReason"]): GenerateResult {
  return {
    text: ids.map((id) => `${id} `).join(""),
    outputIds: ids,
    outputLogProbs: ids.map(() => -1),
    inputLogProbs: [],
    finishReason,
    weightVersion: String(version),
    weightSpans: [{ version, from: 0, to: ids.length, mixed: false }],
    promptTokens: 2,
    cachedTokens: 0,
  };
}

describe("generate", () => {
  it("G1, G2: a cut request goes on from its tokens and says who made which", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(5), { maxLength: 3 }),
        fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 4, maxLength: 4 }),
        async (sizes, versions) => {
          const generator = pieces(sizes, versions);
          const made = await generate(generator, { rid: "r", routingKey: "k", prompt: [0, 1], sampling, limits, signal: never, ...chance });
          expect(made.tokens).toEqual([2, 3, 4, 5, 6, 7]);
          expect(made.finish).toBe("length");
          expect(made.spans.reduce((at, span) => (span.from === at ? span.to : -1), 0)).toBe(6);
          expect(made.spans.every((span, at) => at === 0 || span.version !== made.spans[at - 1]?.version)).toBe(true);
          expect(new Set(generator.asked.map((request) => request.rid)).size).toBe(generator.asked.length);
        },
      ),
    );
  });

  it("gives up after its resumes, and tries a retryable failure again", async () => {
    await expect(
      generate(pieces([0, 0, 0, 0], [1]), { rid: "r", routingKey: "k", prompt: [0], sampling, limits, signal: never, ...chance }),
    ).rejects.toMatchObject({ code: "engine.unavailable" });
    let calls = 0;
    const flaky: Generator = {
      async generate(request) {
        if (calls++ === 0) throw new SlimeError("engine.unavailable", "died", { engine: "e", reason: "died" });
        return result([7], 1, { type: "stop", matched: request.input_ids.length });
      },
    };
    expect((await generate(flaky, { rid: "r", routingKey: "k", prompt: [0], sampling, limits, signal: never, ...chance })).tokens).toEqual([
      7,
    ]);
    expect(calls).toBe(2);
  });

  it("refuses a prompt without room, naming the flags", async () => {
    const prompt = Array.from({ length: 32 }, (_, at) => at);
    await expect(
      generate(pieces([], []), { rid: "r", routingKey: "k", prompt, sampling, limits, signal: never, ...chance }),
    ).rejects.toThrow(/--rollout-max-context-len/);
  });
});

describe("runner", () => {
  const group = (groupIndex: number) => ({
    groupIndex,
    instanceId: `0:${groupIndex}`,
    prompt: `p${groupIndex}`,
    label: null,
    metadata: {},
  });
  const runner = (generator: Generator, score: (count: number) => number | string = () => 1) =>
    new RolloutRunner({
      generator,
      encode: (prompt) => (prompt === "p2" ? Array(40).fill(1) : [0, 1]),
      score: async (samples) =>
        samples.map((_, at) => {
          const reward = score(at);
          return typeof reward === "number" ? { kind: "scored", reward } : { kind: "failed", reason: reward };
        }),
      limits,
      ...chance,
      concurrency: 3,
    });

  it("G3: each group has one outcome and a bad one touches no other", async () => {
    const outcomes = await runner(pieces([], [])).run({
      rolloutId: 5,
      groups: [0, 1, 2, 3].map(group),
      samplesPerGroup: 2,
      sampling,
      samplingSeed: 9,
      signal: never,
    });
    expect(outcomes.map((outcome) => [outcome.kind, outcome.groupIndex])).toEqual([
      ["finished", 0],
      ["finished", 1],
      ["failed", 2],
      ["finished", 3],
    ]);
    const { columns, summaries } = assemble(outcomes, null);
    expect([...columns.sampleIndices_N]).toEqual([0, 1, 2, 3, 6, 7]);
    expect(summaries.get("0:3")?.map((summary) => summary.reward)).toEqual([1, 1]);
  });

  it("G4: a failed reward fails its group and is never a zero", async () => {
    const outcomes = await runner(pieces([], []), (at) => (at === 1 ? "it threw" : 1)).run({
      rolloutId: 0,
      groups: [group(0)],
      samplesPerGroup: 2,
      sampling,
      samplingSeed: null,
      signal: never,
    });
    expect(outcomes).toMatchObject([
      { kind: "failed", code: "reward.failed", retryable: false, message: expect.stringContaining("it threw") },
    ]);
  });

  it("an abort cuts what is in flight and may be tried again", async () => {
    const abort = new AbortController();
    const hung: Generator = {
      generate: (_request, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
    };
    const running = runner(hung).run({
      rolloutId: 0,
      groups: [group(0)],
      samplesPerGroup: 2,
      sampling,
      samplingSeed: null,
      signal: abort.signal,
    });
    abort.abort(new SlimeError("call.cancelled", "stop", { what: "rollout" }));
    expect(await running).toMatchObject([{ kind: "failed", code: "call.cancelled", retryable: true }]);
  });
});

describe("semaphore", () => {
  it("never lets more in than it has room for, and serves in order", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 20 }), async (size, jobs) => {
        const slots = new Semaphore(size);
        let inside = 0;
        let most = 0;
        const order: number[] = [];
        await Promise.all(
          Array.from({ length: jobs }, (_, at) =>
            slots.run(async () => {
              order.push(at);
              most = Math.max(most, ++inside);
              await Promise.resolve();
              inside--;
            }),
          ),
        );
        expect(most).toBeLessThanOrEqual(size);
        expect(order).toEqual(Array.from({ length: jobs }, (_, at) => at));
      }),
    );
  });
});
