import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { Decoder } from "../decoder.js";
import { Arena } from "../kernels.js";
import type { ModelConfig } from "../model-config.js";
import { referenceLogProbs } from "../testing/index.js";
import { WeightSet } from "../weights.js";
import type { EmbeddedEngine } from "./engine.js";
import { defaultEngineLimits, limitsFor } from "./options.js";
import type { Sequence } from "./sequence.js";
import { ask, letterTokenizer, outcome, servedConfig, servedLlamaConfig, servedWeights, start, tinyEngine } from "./testing/tiny-engine.js";

const engines: EmbeddedEngine[] = [];
async function engineOf(...args: Parameters<typeof tinyEngine>): Promise<EmbeddedEngine> {
  const engine = await tinyEngine(...args);
  engines.push(engine);
  return engine;
}
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.close();
});

async function askOne(engine: EmbeddedEngine, body: unknown): Promise<Sequence> {
  const [sequence] = await ask(engine, body);
  if (sequence === undefined) throw new RangeError("no sequence");
  return sequence;
}

const token = fc.integer({ min: 0, max: servedConfig.vocabSize - 1 });
const request = fc.record({
  input_ids: fc.array(token, { minLength: 1, maxLength: 20 }),
  return_logprob: fc.constant(true),
  logprob_start_len: fc.constantFrom(-1, 0),
  sampling_params: fc.record({
    temperature: fc.constantFrom(0, 0.6, 1, 1.5),
    top_p: fc.constantFrom(1, 0.7),
    top_k: fc.constantFrom(-1, 5),
    max_new_tokens: fc.integer({ min: 0, max: 16 }),
    sampling_seed: fc.nat(),
    ignore_eos: fc.boolean(),
  }),
});

describe.each([
  ["Qwen3", servedConfig],
  ["Llama", servedLlamaConfig],
])("generation of %s", (_, config) => {
  it("D1, S1: tokens and log-probs of a request are the same bits alone, among others, and with prompts in parts", async () => {
    const alone = await engineOf({}, { config });
    await fc.assert(
      fc.asyncProperty(
        fc.array(request, { minLength: 2, maxLength: 8 }),
        fc.integer({ min: 4, max: 32 }),
        fc.integer({ min: 1, max: 4 }),
        async (requests, stepRowsMax, runningMax) => {
          const together = await tinyEngine({ stepRowsMax, runningMax }, { config });
          const mixed = await Promise.all(requests.map((body) => askOne(together, body)));
          await together.close();
          for (const [i, body] of requests.entries()) expect(outcome(mixed[i] as Sequence)).toEqual(outcome(await askOne(alone, body)));
        },
      ),
      { numRuns: 15 },
    );
  });

  it("log-probs are the trainer's at equal weights, and near those of the plain reference", async () => {
    const engine = await engineOf({}, { config });
    const arena = new Arena();
    const trainer = new Decoder(arena, config);
    const weights = new WeightSet(arena, config);
    weights.set(servedWeights(5, config));
    for (const temperature of [0.7, 1, 1.3]) {
      const body = {
        input_ids: [3, 1, 4, 1, 5],
        return_logprob: true,
        logprob_start_len: 0,
        sampling_params: { temperature, max_new_tokens: 24, ignore_eos: true, sampling_seed: 11 },
      };
      const sequence = await askOne(engine, body);
      const all = [...body.input_ids, ...sequence.outputIds];
      const packed = {
        tokens_L: Int32Array.from(all),
        bounds: Int32Array.from([0, all.length]),
        rows: Int32Array.from(all.slice(1), (_, i) => i),
        targets: Int32Array.from(all.slice(1)),
      };
      const trained = trainer.logProbs(weights, packed, temperature).logProbs_T;
      const scored = trainer.logProbs(weights, packed, 1).logProbs_T;
      const plain = referenceLogProbs(config, servedWeights(5, config), packed, temperature).logProbs_T;
      expect(sequence.outputLogProbs).toHaveLength(24);
      expect(sequence.inputLogProbs[0]).toBeNull();
      sequence.outputLogProbs.forEach((logProb, i) => {
        expect(Math.abs(logProb - (trained[4 + i] ?? NaN))).toBeLessThan(1e-6);
        expect(Math.abs(logProb - (plain[4 + i] ?? NaN))).toBeLessThan(1e-4);
      });
      sequence.inputLogProbs.slice(1).forEach((logProb, i) => expect(Math.abs((logProb ?? NaN) - (scored[i] ?? NaN))).toBeLessThan(1e-6));
    }
  });
});

describe("choice of a token", () => {
  it("greedy takes the most probable token; top_k 1 and a tiny top_p are greedy; seeds decide the rest", async () => {
    const engine = await engineOf();
    const ids = async (params: object) =>
      (await askOne(engine, { input_ids: [2, 7], sampling_params: { max_new_tokens: 12, ignore_eos: true, ...params } })).outputIds;
    const greedy = await ids({ temperature: 0 });
    expect(await ids({ temperature: 1, top_k: 1 })).toEqual(greedy);
    expect(await ids({ temperature: 1, top_p: 1e-6 })).toEqual(greedy);
    expect(await ids({ temperature: 1, min_p: 1 })).toEqual(greedy);
    expect(await ids({ temperature: 1.5, sampling_seed: 1 })).toEqual(await ids({ temperature: 1.5, sampling_seed: 1 }));
    expect(await ids({ temperature: 1.5, sampling_seed: 1 })).not.toEqual(await ids({ temperature: 1.5, sampling_seed: 2 }));
  });

  it("n choices differ, and a single one equals the first", async () => {
    const engine = await engineOf();
    const body = {
      rid: "r",
      input_ids: [2, 7],
      sampling_params: { max_new_tokens: 10, ignore_eos: true, temperature: 1.5, sampling_seed: 4 },
    };
    const many = await ask(engine, { ...body, sampling_params: { ...body.sampling_params, n: 3 } });
    expect(many.map(({ job }) => job.rid)).toEqual(["r_0", "r_1", "r_2"]);
    expect(new Set(many.map(({ outputIds }) => outputIds.join())).size).toBe(3);
    expect(many[0]?.outputIds).toEqual((await askOne(engine, body)).outputIds);
  });

  it("sampled frequencies follow the probabilities", async () => {
    const engine = await engineOf({ runningMax: 32 });
    const count = 2_000;
    const drawn = await ask(engine, {
      input_ids: [2, 7],
      return_logprob: true,
      sampling_params: { n: count, max_new_tokens: 1, temperature: 2, sampling_seed: 9 },
    });
    const seen = new Map<number, { times: number; p: number }>();
    for (const { outputIds, outputLogProbs } of drawn) {
      const entry = seen.get(outputIds[0] ?? -1) ?? { times: 0, p: Math.exp(outputLogProbs[0] ?? NaN) };
      seen.set(outputIds[0] ?? -1, { ...entry, times: entry.times + 1 });
    }
    for (const { times, p } of seen.values()) expect(Math.abs(times - count * p)).toBeLessThan(5 * Math.sqrt(count * p * (1 - p)) + 1);
  });
});

describe("where an output ends", () => {
  const base = { input_ids: [2, 7] };
  it("at the length, at a stop token (kept in ids, cut from text), at a stop string, never before min_new_tokens", async () => {
    const engine = await engineOf();
    const run = (params: object) => askOne(engine, { ...base, sampling_params: { temperature: 0, max_new_tokens: 12, ...params } });
    const free = await run({ ignore_eos: true });
    expect(outcome(free).reason).toEqual({ type: "length", length: 12 });
    const text = letterTokenizer.decode(free.outputIds, true);
    const third = free.outputIds[2] ?? -1;
    const first = free.outputIds.indexOf(third);

    const stopped = await run({ stop_token_ids: [third] });
    expect(outcome(stopped)).toMatchObject({ ids: free.outputIds.slice(0, first + 1), reason: { type: "stop", matched: third } });
    expect(stopped.finalText(letterTokenizer)).toBe(text.slice(0, first));
    expect((await run({ stop_token_ids: [third], no_stop_trim: true })).finalText(letterTokenizer)).toBe(text.slice(0, first + 1));

    const stop = text.slice(3, 5);
    const cut = await run({ ignore_eos: true, stop });
    expect(outcome(cut).reason).toEqual({ type: "stop", matched: stop });
    expect(cut.finalText(letterTokenizer)).toBe(text.slice(0, text.indexOf(stop)));
    expect(cut.outputIds).toHaveLength(text.indexOf(stop) + 2);

    const late = await run({ stop_token_ids: [third], min_new_tokens: 8 });
    expect(late.outputIds.slice(0, 8)).not.toContain(third);
    const last = await run({ stop_token_ids: [third], max_new_tokens: first + 1 });
    expect(outcome(last).reason).toEqual({ type: "stop", matched: third });
  });

  it("scores an input without generating", async () => {
    const engine = await engineOf();
    const sequence = await askOne(engine, {
      input_ids: [1, 2, 3, 4],
      return_logprob: true,
      logprob_start_len: 1,
      sampling_params: { max_new_tokens: 0 },
    });
    expect(outcome(sequence)).toMatchObject({ ids: [], reason: { type: "length", length: 0 } });
    const whole = await askOne(engine, {
      input_ids: [1, 2, 3, 4],
      return_logprob: true,
      logprob_start_len: 0,
      sampling_params: { max_new_tokens: 0 },
    });
    expect(sequence.inputLogProbs).toEqual([null, ...whole.inputLogProbs.slice(2)]);
  });
});

describe("pause and weights", () => {
  const long = {
    input_ids: [2, 7, 9],
    return_logprob: true,
    sampling_params: { temperature: 1, max_new_tokens: 40, ignore_eos: true, sampling_seed: 3 },
  };

  for (const mode of ["in_place", "retract"] as const) {
    it(`${mode}: goes on after continue with the tokens of an undisturbed run`, async () => {
      const engine = await engineOf();
      const undisturbed = outcome(await askOne(engine, long));
      const { sequence, reached, ended } = start(engine, long, 5);
      await reached;
      engine.pause(mode);
      expect(engine.scheduler.running).toBe(mode === "in_place" ? 1 : 0);
      await expect(engine.flush(0)).rejects.toThrow(/Flush cache failed/);
      const later = ask(engine, { ...long, rid: "later" });
      engine.resume();
      expect(outcome(await ended)).toEqual(undisturbed);
      expect(sequence.retractions).toBe(mode === "retract" ? 1 : 0);
      expect((await later)[0]?.outputIds).toEqual(undisturbed.ids);
    });
  }

  it("abort: what runs returns with its tokens so far; new requests wait; then a flush succeeds", async () => {
    const engine = await engineOf();
    const { reached, ended } = start(engine, long, 5);
    await reached;
    engine.pause("abort");
    const sequence = await ended;
    expect(outcome(sequence)).toMatchObject({ reason: { type: "abort", message: "Aborted" } });
    expect(sequence.outputIds.length).toBeGreaterThanOrEqual(5);
    await engine.flush(0);
    const later = start(engine, long, 1);
    engine.resume();
    expect((await later.ended).outputIds).toHaveLength(40);
  });

  it("Q5, N2: an update between two tokens is in the spans; tokens before and after come from their own weights", async () => {
    const engine = await engineOf();
    const { reached, ended } = start(engine, long, 5);
    await reached;
    engine.pause("retract");
    await engine.updateWeights({ kind: "values", values: servedWeights(6) }, "2");
    engine.resume();
    const sequence = await ended;
    const [before, after] = sequence.spans;
    expect(sequence.spans).toHaveLength(2);
    expect(before).toMatchObject({ version: 1, from: 0, mixed: false });
    expect(after).toEqual({ version: 2, from: before?.to, to: 40, mixed: false });
    expect(sequence.weightVersion).toBe("2");
    const other = await engineOf();
    await other.updateWeights({ kind: "values", values: servedWeights(6) }, "2");
    const known = [...long.input_ids, ...sequence.outputIds];
    const scored = await askOne(other, {
      input_ids: known,
      return_logprob: true,
      logprob_start_len: 0,
      sampling_params: { max_new_tokens: 0 },
    });
    const from = before?.to ?? 0;
    expect(scored.inputLogProbs.slice(long.input_ids.length + from)).toEqual(sequence.outputLogProbs.slice(from));
    expect(scored.inputLogProbs.slice(long.input_ids.length, long.input_ids.length + from)).not.toEqual(
      sequence.outputLogProbs.slice(0, from),
    );
  });

  it("an update without a pause waits for what runs and holds back what comes", async () => {
    const engine = await engineOf();
    const { reached, ended } = start(engine, long, 5);
    await reached;
    const update = engine.updateWeights({ kind: "values", values: servedWeights(6) }, "2");
    const later = start(engine, { ...long, rid: "later" }, 1);
    await expect(engine.updateWeights({ kind: "values", values: servedWeights(6) }, "3")).rejects.toThrow(/one at a time/);
    await update;
    expect((await ended).spans).toEqual([{ version: 1, from: 0, to: 40, mixed: false }]);
    expect((await later.ended).spans).toEqual([{ version: 2, from: 0, to: 40, mixed: false }]);
  });

  it("weights of NaN fail the request, not the engine", async () => {
    const engine = await engineOf();
    await engine.updateWeights({ kind: "values", values: servedWeights(5).fill(NaN) }, "2");
    expect((await askOne(engine, long)).state).toMatchObject({
      kind: "failed",
      status: 500,
      message: expect.stringMatching(/not finite.*version 2/),
    });
    await engine.updateWeights({ kind: "values", values: servedWeights(5) }, "3");
    expect((await askOne(engine, long)).outputIds).toHaveLength(40);
  });

  it("refuses before the first weights", async () => {
    const engine = await engineOf({}, { version: null });
    await expect(ask(engine, long)).rejects.toSatisfy((error) => SlimeError.is(error, "engine.refused") && error.details.status === 503);
  });
});

describe("limits of a large model", () => {
  const smollm2: ModelConfig = {
    ...servedLlamaConfig,
    vocabSize: 49_152,
    hiddenSize: 576,
    intermediateSize: 1_536,
    layers: 30,
    heads: 9,
    kvHeads: 3,
    headDim: 64,
    positionsMax: 8_192,
  };
  it("the cache stays within its bytes, a step within its work, and half of its rows are left for prompts", () => {
    const limits = limitsFor(smollm2, defaultEngineLimits);
    expect(limits).toMatchObject({ kvTokensMax: 11_650, stepRowsMax: 44, runningMax: 22 });
    expect(limitsFor(servedConfig, defaultEngineLimits)).toEqual(defaultEngineLimits);
  });
});

describe("admission", () => {
  const body = (rid: string, max_new_tokens = 8) => ({ rid, input_ids: [2, 7], sampling_params: { max_new_tokens, ignore_eos: true } });

  it("refuses a duplicate rid, a request that can never fit, and one more than the queue holds", async () => {
    const engine = await engineOf({ waitingMax: 2, kvTokensMax: 32 });
    engine.pause("in_place");
    const first = ask(engine, body("a"));
    await expect(ask(engine, body("a"))).rejects.toThrow(/Duplicate request ID/);
    await expect(ask(engine, body("b", 40))).rejects.toThrow(/tokens of cache/);
    const second = ask(engine, body("c"));
    await expect(ask(engine, body("d"))).rejects.toThrow(/queue is full/);
    engine.resume();
    expect((await Promise.all([first, second])).flat().map(({ outputIds }) => outputIds.length)).toEqual([8, 8]);
    expect((await ask(engine, body("a")))[0]?.outputIds).toHaveLength(8);
  });

  it("Q1, Q2, Q6: whatever comes in whatever order, each sequence ends once and every page comes back", async () => {
    const op = fc.oneof(
      fc.record({ kind: fc.constant("ask" as const), length: fc.integer({ min: 1, max: 12 }), tokens: fc.integer({ min: 0, max: 12 }) }),
      fc.record({ kind: fc.constant("abort" as const), of: fc.nat({ max: 20 }) }),
      fc.record({ kind: fc.constant("pause" as const), mode: fc.constantFrom("abort" as const, "retract" as const, "in_place" as const) }),
      fc.constant({ kind: "resume" as const }),
      fc.constant({ kind: "update" as const }),
      fc.constant({ kind: "turn" as const }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(op, { maxLength: 30 }), async (ops) => {
        const engine = await tinyEngine({ kvTokensMax: 64, runningMax: 3, stepRowsMax: 8 });
        const pending: Promise<Sequence>[] = [];
        const updates: Promise<unknown>[] = [];
        let version = 1;
        for (const [i, step] of ops.entries()) {
          if (step.kind === "ask")
            pending.push(
              start(
                engine,
                {
                  rid: `r${i}`,
                  input_ids: Array.from({ length: step.length }, (_, t) => t),
                  sampling_params: { max_new_tokens: step.tokens, ignore_eos: true },
                },
                1,
              ).ended,
            );
          if (step.kind === "abort") engine.abort({ rid: `r${step.of}` });
          if (step.kind === "pause") engine.pause(step.mode);
          if (step.kind === "resume") engine.resume();
          if (step.kind === "update")
            updates.push(
              engine
                .updateWeights({ kind: "values", values: servedWeights(5) }, String(++version))
                .catch((error: unknown) => expect(String(error)).toMatch(/one at a time/)),
            );
          if (step.kind === "turn") await new Promise((resolve) => setImmediate(resolve));
        }
        engine.resume();
        const ended = await Promise.all(pending);
        await Promise.all(updates);
        for (const sequence of ended) {
          expect(sequence.state.kind).toBe("finished");
          const spans = sequence.spans;
          expect(spans.at(-1)?.to ?? 0).toBe(sequence.outputIds.length);
          spans.forEach((span, s) => expect(span.from).toBe(spans[s - 1]?.to ?? 0));
        }
        expect(engine.scheduler).toMatchObject({ running: 0, waiting: 0, kvTokensUsed: 0 });
        expect(engine.kvTokensFree).toBe(engine.kvTokensMax);
        await engine.close();
      }),
      { numRuns: 40 },
    );
  });

  it("N3: closing answers what runs and refuses what comes", async () => {
    const engine = await engineOf();
    const { reached, ended } = start(engine, { ...body("a"), sampling_params: { max_new_tokens: 60, ignore_eos: true } }, 2);
    await reached;
    await engine.close("the test says so");
    expect((await ended).state).toMatchObject({ kind: "failed", status: 503 });
    await expect(ask(engine, body("b"))).rejects.toThrow(/the test says so/);
  });
});
