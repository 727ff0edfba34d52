import { causeChain, SlimeError } from "@slime/core";
import { expect, it } from "vitest";
import type { GenerateRequest, SamplingParams } from "../engine.js";
import { outcome } from "./engine-generation.js";
import { type EngineProbe, failureOf } from "./engine-subject.js";

interface Chunk {
  readonly text: string;
  readonly output_ids: readonly number[];
  readonly meta_info: {
    readonly finish_reason: { readonly type: string } | null;
    readonly output_token_logprobs: readonly unknown[];
    readonly completion_tokens: number;
  };
}

/** How requests travel: streams, refusals, aborts, callers that leave or have no more time. */
export function requestCases(probe: () => EngineProbe): void {
  it("E9: a stream is cumulative, ends with its reason and [DONE], and says what the plain reply says", async () => {
    const whole = await probe().generate({ max_new_tokens: 12 });
    const { status, contentType, text } = await probe().post("/generate", { ...probe().request({ max_new_tokens: 12 }), stream: true });
    expect({ status, contentType }).toEqual({ status: 200, contentType: expect.stringContaining("text/event-stream") });
    const events = text
      .split("\n\n")
      .filter((event) => event !== "")
      .map((event) => event.replace(/^data: /, ""));
    expect(events.pop()).toBe("[DONE]");
    const chunks = events.map((event) => JSON.parse(event) as Chunk);
    const last = chunks.at(-1);
    chunks.forEach((chunk, i) => {
      expect(chunk.output_ids).toEqual(whole.outputIds.slice(0, chunk.output_ids.length));
      expect(chunk.output_ids.length).toBeGreaterThanOrEqual(chunks[i - 1]?.output_ids.length ?? 1);
      expect(chunk.meta_info.output_token_logprobs).toHaveLength(chunk.output_ids.length);
      expect(chunk.meta_info.completion_tokens).toBe(chunk.output_ids.length);
      expect(whole.text.startsWith(chunk.text)).toBe(true);
      expect(chunk.meta_info.finish_reason === null).toBe(chunk !== last);
    });
    expect(last).toMatchObject({ text: whole.text, output_ids: whole.outputIds, meta_info: { finish_reason: { type: "length" } } });
  });

  it("E10: a caller that listens gets rising counts and the same result", async () => {
    const counts: number[] = [];
    const whole = await probe().generate({ max_new_tokens: 80 });
    const streamed = await probe().engine.generate(probe().request({ max_new_tokens: 80 }), {
      timeoutMs: 60_000,
      onTokens: (count) => void counts.push(count),
    });
    expect(outcome(streamed)).toEqual(outcome(whole));
    expect(counts).toEqual([...new Set(counts)].sort((a, b) => a - b));
    expect(counts.at(-1)).toBe(80);
    expect(counts.length).toBeGreaterThan(1);
  });

  const refused: readonly (readonly [
    string,
    (at: EngineProbe) => { readonly params?: Partial<SamplingParams>; readonly fields?: Partial<GenerateRequest> },
  ])[] = [
    ["a prompt beyond the context", ({ subject }) => ({ fields: { input_ids: Array<number>(subject.contextLength + 1).fill(3) } })],
    ["more new tokens than the context has left", ({ subject }) => ({ params: { max_new_tokens: subject.contextLength } })],
    ["no prompt", () => ({ fields: { input_ids: [] } })],
    ["a negative temperature", () => ({ params: { temperature: -1 } })],
    ["top_p 0", () => ({ params: { top_p: 0 } })],
    ["min_new_tokens above max_new_tokens", () => ({ params: { min_new_tokens: 9 } })],
  ];
  it.each(refused)("E11: %s is refused, and the engine lives on", async (_name, make) => {
    const { params, fields } = make(probe());
    const failure = await failureOf(probe().generate(params, fields));
    expect(failure).toMatchObject({ code: "engine.refused" });
    expect(
      SlimeError.is(failure, "engine.refused") &&
        failure.details.status >= 400 &&
        failure.details.status < 500 &&
        failure.details.reason !== "",
    ).toBe(true);
    await lives(probe());
  });

  it("E12: an id beyond the vocabulary is refused", async (context) => {
    if (!probe().subject.can.checksIds) return context.skip("this server dies of it; whoever calls it must check");
    for (const id of [probe().subject.vocabulary, -1]) {
      await expect(probe().generate({}, { input_ids: [3, id] })).rejects.toMatchObject({
        code: "engine.refused",
        details: { status: 400 },
      });
    }
    await lives(probe());
  });

  // Not by the port: it could not say these. A stock server answers an unknown parameter with 500.
  const malformed: readonly (readonly [string, string])[] = [
    ["malformed JSON", '{"input_ids": [3, 4'],
    ["JSON that is no object", "[1, 2]"],
    ["an unknown sampling parameter", JSON.stringify({ input_ids: [3, 4], sampling_params: { temperatur: 1, max_new_tokens: 1 } })],
    ["neither text nor ids", JSON.stringify({ sampling_params: { max_new_tokens: 1 } })],
    ["a sampling parameter of another type", JSON.stringify({ input_ids: [3, 4], sampling_params: { max_new_tokens: "many" } })],
  ];
  it.each(malformed)("E13: %s is answered with an error, and the engine lives on", async (_name, body) => {
    const { status } = await probe().post("/generate", body);
    expect(status).toBeGreaterThanOrEqual(400);
    await lives(probe());
  });

  it("E14: a rid is one request's at a time", async () => {
    const flight = probe().fly();
    await flight.begun;
    await expect(probe().generate({}, { rid: flight.rid })).rejects.toMatchObject({ code: "engine.refused", details: { status: 400 } });
    await probe().engine.abort({ rid: flight.rid });
    await flight.done;
    expect((await probe().generate({}, { rid: flight.rid })).outputIds).toHaveLength(8);
  });

  it("E15: an abort ends one request, or all, with what they have; an unknown rid is nothing", async () => {
    const [one, two, three] = [probe().fly(), probe().fly(), probe().fly()];
    await Promise.all([one.begun, two.begun, three.begun]);
    await probe().engine.abort({ rid: "nobody" });
    await probe().engine.abort({ rid: one.rid });
    const ended = await one.done;
    expect(ended.finishReason.type).toBe("abort");
    expect(ended.outputIds.length).toBeLessThan(probe().subject.longTokens);
    expect(ended.outputLogProbs).toHaveLength(ended.outputIds.length);
    expect([two.settled(), three.settled()]).toEqual([false, false]);
    await probe().engine.abort({ all: true });
    for (const { finishReason } of await Promise.all([two.done, three.done])) expect(finishReason.type).toBe("abort");
    await probe().idle();
  });

  it("E16: a caller who leaves gets his own reason, and the engine drops the request", async () => {
    const gone = new AbortController();
    const flight = probe().fly({ signal: gone.signal });
    await flight.begun;
    const reason = new Error("changed my mind");
    gone.abort(reason);
    expect(await failureOf(flight.done)).toBe(reason);
    await probe().idle();
    const plain = new AbortController();
    await probe().engine.pause("in_place");
    const waiting = probe().engine.generate(probe().request(), { timeoutMs: 60_000, signal: plain.signal });
    await probe().roundTrips();
    plain.abort(reason);
    expect(await failureOf(waiting)).toBe(reason);
    await probe().engine.resume();
    await probe().idle();
    expect(await failureOf(probe().engine.generate(probe().request(), { timeoutMs: 60_000, signal: plain.signal }))).toBe(reason);
  });

  it("E17: a call past its deadline fails with a failure that may be tried again, and is dropped", async () => {
    await probe().engine.pause("in_place");
    const failure = await failureOf(probe().engine.generate(probe().request(), { timeoutMs: 30 }));
    expect(SlimeError.is(failure, "call.deadline") || SlimeError.is(failure, "engine.unavailable")).toBe(true);
    expect(causeChain(failure).join("\n")).toContain("[call.deadline]");
    await probe().engine.resume();
    await probe().idle();
    await lives(probe());
  });
}

async function lives(probe: EngineProbe): Promise<void> {
  expect((await probe.generate({ max_new_tokens: 3 })).outputIds).toHaveLength(3);
}
