import { expect, it } from "vitest";
import type { GenerateResult, SamplingParams } from "../engine.js";
import type { EngineProbe } from "./engine-subject.js";

/** What comes out: lengths, ends, log-probs, seeds. */
export function generationCases(probe: () => EngineProbe): void {
  it("E1: an output has the length asked for, ids of the vocabulary, and one log-prob a token, none above 0", async () => {
    for (const max_new_tokens of [1, 2, 17]) {
      const result = await probe().generate({ max_new_tokens });
      expect(result).toMatchObject({ finishReason: { type: "length", length: max_new_tokens }, promptTokens: 3 });
      expect(result.outputIds).toHaveLength(max_new_tokens);
      expect(result.outputIds.every((id) => Number.isInteger(id) && id >= 0 && id < probe().subject.vocabulary)).toBe(true);
      expect(result.outputLogProbs).toHaveLength(max_new_tokens);
      expect(result.outputLogProbs.every((logProb) => logProb <= 0 && Number.isFinite(logProb))).toBe(true);
      expect(result.inputLogProbs.filter((logProb) => logProb !== null)).toEqual([]);
    }
    expect((await probe().generate({}, { return_logprob: false })).outputLogProbs).toEqual([]);
  });

  it("E2: greedy repeats exactly", async () => {
    const [first, again] = [await probe().generate(), await probe().generate()];
    expect(outcome(again)).toEqual(outcome(first));
  });

  it("E3: a stop id ends an output and stays in it, not before min_new_tokens, not under ignore_eos", async () => {
    const { prompt, free, at } = await variedPath(probe());
    const stop = free.outputIds[at] as number;
    const run = (params: Partial<SamplingParams>) =>
      probe().generate(
        { max_new_tokens: free.outputIds.length, ignore_eos: false, stop_token_ids: [stop], ...params },
        { input_ids: prompt },
      );
    const stopped = await run({});
    expect(stopped.finishReason).toEqual({ type: "stop", matched: stop });
    expect(stopped.outputIds).toEqual(free.outputIds.slice(0, at + 1));
    expect(stopped.outputLogProbs).toHaveLength(at + 1);
    expect(free.text.startsWith(stopped.text)).toBe(true);
    const late = await run({ min_new_tokens: at + 2 });
    expect(late.outputIds.slice(0, at + 2)).not.toContain(stop);
    expect(late.outputIds.length).toBeGreaterThanOrEqual(at + 2);
    expect((await run({ ignore_eos: true })).finishReason.type).toBe("length");
  });

  it("E4: a stop string ends an output, is cut from the text and not from the ids", async (context) => {
    if (probe().subject.encode === null) return context.skip("no tokenizer, no stop strings");
    const free = await probe().generate({ max_new_tokens: 24 });
    const stop = /[A-Za-z0-9]{2}/.exec(free.text.slice(2))?.[0];
    if (stop === undefined) return context.skip(`no two plain letters in ${JSON.stringify(free.text)}`);
    const cut = await probe().generate({ max_new_tokens: 24, stop: ["never said", stop] });
    expect(cut.finishReason).toEqual({ type: "stop", matched: stop });
    expect(cut.text).toBe(free.text.slice(0, free.text.indexOf(stop)));
    expect(cut.outputIds).toEqual(free.outputIds.slice(0, cut.outputIds.length));
    const kept = await probe().generate({ max_new_tokens: 24, stop: [stop], no_stop_trim: true });
    expect(kept.text).toContain(stop);
    expect(kept.outputIds).toEqual(cut.outputIds);
  });

  it("E5: a text is its ids", async (context) => {
    const { encode } = probe().subject;
    if (encode === null) return context.skip("no tokenizer");
    const { text } = await probe().generate();
    const params = { temperature: 0, max_new_tokens: 5, ignore_eos: true };
    const [asText, asIds] = [
      await probe().post("/generate", { text, sampling_params: params }),
      await probe().post("/generate", { input_ids: encode(text), sampling_params: params }),
    ];
    const ids = ({ status, text: body }: typeof asText) => ({
      status,
      ids: (JSON.parse(body) as { readonly output_ids: readonly number[] }).output_ids,
    });
    expect(ids(asText)).toEqual(ids(asIds));
  });

  it("E6: input log-probs begin where asked, with a null, and are those the tokens were sampled with", async () => {
    const limit = probe().subject.can.logProbDifferenceMax;
    const sampled = await probe().generate({ temperature: 1, max_new_tokens: 24 });
    const tokens = [...probe().prompt(), ...sampled.outputIds];
    const scored = await probe().generate({ temperature: 1, max_new_tokens: 0 }, { input_ids: tokens, logprob_start_len: 0 });
    expect(scored).toMatchObject({
      outputIds: [],
      outputLogProbs: [],
      finishReason: { type: "length", length: 0 },
      promptTokens: tokens.length,
    });
    expect(scored.inputLogProbs).toHaveLength(tokens.length);
    expect(scored.inputLogProbs[0]).toBeNull();
    near(scored.inputLogProbs.slice(3), sampled.outputLogProbs, limit);
    const late = await probe().generate({ temperature: 1, max_new_tokens: 2 }, { input_ids: tokens, logprob_start_len: 5 });
    expect(late.inputLogProbs).toHaveLength(tokens.length - 5);
    expect(late.inputLogProbs[0]).toBeNull();
    near(late.inputLogProbs.slice(1), scored.inputLogProbs.slice(6) as number[], limit);
    expect(late.outputIds).toHaveLength(2);
  });

  it("E7: top_k and top_p bound the choice; the log-prob stays that of the whole vocabulary", async () => {
    const greedy = await probe().generate();
    const limit = probe().subject.can.logProbDifferenceMax;
    for (const params of [{ top_k: 1 }, { top_p: 1e-6 }]) {
      const bounded = await probe().generate({ temperature: 1, ...params });
      expect(bounded.outputIds, JSON.stringify(params)).toEqual(greedy.outputIds);
      near(bounded.outputLogProbs, greedy.outputLogProbs, limit);
    }
  });

  it("E8: a seed decides the tokens, alone and among others", async (context) => {
    if (!probe().subject.can.seeds) return context.skip("this server takes no seeds");
    const seeded = (sampling_seed: number) => probe().generate({ temperature: 1.5, max_new_tokens: 24, sampling_seed });
    const alone = outcome(await seeded(5));
    const [among, other] = await Promise.all([seeded(5), seeded(6), seeded(7), seeded(8)]);
    expect(outcome(among)).toEqual(alone);
    expect(other.outputIds).not.toEqual(alone.ids);
  });
}

/** What a repeat must equal. */
export function outcome(result: GenerateResult): {
  readonly ids: readonly number[];
  readonly logProbs: readonly number[];
  readonly text: string;
} {
  return { ids: result.outputIds, logProbs: result.outputLogProbs, text: result.text };
}

export function near(got: readonly (number | null)[], wanted: readonly (number | null)[], differenceMax: number): void {
  expect(got).toHaveLength(wanted.length);
  for (const [i, value] of got.entries()) {
    const difference = Math.abs((value ?? Number.NaN) - (wanted[i] ?? Number.NaN));
    expect(difference, `place ${i}`).toBeLessThanOrEqual(differenceMax);
  }
}

/** A greedy output that does not end by itself, with a token at `at` ≥ 1 that did not come before: what stop conditions need. */
async function variedPath(
  probe: EngineProbe,
): Promise<{ readonly prompt: readonly number[]; readonly free: GenerateResult; readonly at: number }> {
  for (let i = 0; i < 64; i++) {
    const prompt = probe.prompt(i);
    const free = await probe.generate({ max_new_tokens: 10, ignore_eos: false }, { input_ids: prompt });
    const at = free.outputIds.findIndex((id, place) => place >= 2 && free.outputIds.indexOf(id) === place);
    if (free.finishReason.type === "length" && at > 0) return { prompt, free, at };
  }
  throw new Error("no greedy output of 64 prompts has three different tokens; give the subject rougher weights");
}
