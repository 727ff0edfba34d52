import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HttpEngine } from "./engine-client.js";
import { SpanCounter } from "./engine-reply.js";
import { SseEvents } from "./sse-events.js";
import { answerJson, type ScriptedEngine, scriptedEngine } from "./testing/index.js";

let server: ScriptedEngine;
let engine: HttpEngine;
beforeEach(async () => {
  server = await scriptedEngine();
  engine = new HttpEngine(server.url, { controlTimeoutMs: 2_000 });
});
afterEach(async () => {
  await engine.close();
  await server[Symbol.asyncDispose]();
});

const request = {
  rid: "r",
  input_ids: [1, 2],
  sampling_params: { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: 8 },
  return_logprob: true,
};
const reply = (tokens: number, version: string, finish: unknown, extra: object = {}) => ({
  text: "x".repeat(tokens),
  output_ids: Array.from({ length: tokens }, (_, i) => i),
  meta_info: {
    id: "r",
    finish_reason: finish,
    prompt_tokens: 2,
    completion_tokens: tokens,
    cached_tokens: 1,
    weight_version: version,
    output_token_logprobs: Array.from({ length: tokens }, (_, i) => [-i - 0.5, i, null]),
    input_token_logprobs: [
      [null, 1, null],
      [-2, 2, null],
    ],
    ...extra,
  },
});
const code = (expected: string) => (error: unknown) => SlimeError.isAny(error) && error.code === expected;

describe("generate", () => {
  it("reads a reply, with the engine's own spans", async () => {
    server.script = (_request, response) =>
      answerJson(
        response,
        reply(
          3,
          "8",
          { type: "stop", matched: 2 },
          {
            weight_version_spans: [
              [7, 0, 2],
              [8, 2, 3],
            ],
          },
        ),
      );
    const got = await engine.generate(request, { timeoutMs: 5_000 });
    expect(got).toEqual({
      text: "xxx",
      outputIds: [0, 1, 2],
      outputLogProbs: [-0.5, -1.5, -2.5],
      inputLogProbs: [null, -2],
      finishReason: { type: "stop", matched: 2 },
      weightVersion: "8",
      weightSpans: [
        { version: 7, from: 0, to: 2, mixed: false },
        { version: 8, from: 2, to: 3, mixed: false },
      ],
      promptTokens: 2,
      cachedTokens: 1,
    });
    expect(JSON.parse(server.seen[0]?.body.toString() ?? "")).toEqual(request);
  });

  it("without a record, a span is mixed unless the router's header shows one version on the way", async () => {
    let headers: Record<string, string> = {};
    server.script = (_request, response) => {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      answerJson(response, reply(2, "8", { type: "length", length: 2 }));
    };
    const mixed = async () => (await engine.generate(request, { timeoutMs: 5_000 })).weightSpans;
    expect(await mixed()).toEqual([{ version: 8, from: 0, to: 2, mixed: true }]);
    headers = { "x-slime-weight-version": "7" };
    expect(await mixed()).toEqual([{ version: 7, from: 0, to: 2, mixed: true }]);
    headers = { "x-slime-weight-version": "8" };
    expect(await mixed()).toEqual([{ version: 8, from: 0, to: 2, mixed: false }]);
  });

  it("names the key that a hashing router goes by, where there is one", async () => {
    server.script = (_request, response) => answerJson(response, reply(1, "8", { type: "length", length: 1 }));
    await engine.generate(request, { timeoutMs: 5_000 });
    await engine.generate(request, { timeoutMs: 5_000, routingKey: "0:7" });
    expect(server.seen.map(({ headers }) => headers["x-smg-routing-key"])).toEqual([undefined, "0:7"]);
  });

  it.each([
    ["nothing", { kind: "floor", floor: (): number | null => null }, { version: 8, mixed: true }],
    ["an older floor", { kind: "floor", floor: (): number | null => 6 }, { version: 6, mixed: true }],
    ["a floor at the reply's version", { kind: "floor", floor: (): number | null => 8 }, { version: 8, mixed: false }],
    ["that pushes cut every request", { kind: "one" }, { version: 8, mixed: false }],
  ] as const)("without record and header, knowing %s", async (_, versions, span) => {
    server.script = (_request, response) => answerJson(response, reply(2, "8", { type: "length", length: 2 }));
    const knowing = new HttpEngine(engine.url, { versions });
    const { weightSpans } = await knowing.generate(request, { timeoutMs: 5_000 });
    await knowing.close();
    expect(weightSpans).toEqual([{ ...span, from: 0, to: 2 }]);
  });

  it("streams when someone listens, and counts tokens per version", async () => {
    server.script = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      for (const [tokens, version, finish] of [
        [1, "7", null],
        [4, "7", null],
        [6, "8", { type: "length", length: 6 }],
      ] as const)
        response.write(`data: ${JSON.stringify(reply(tokens, version, finish))}\n\n`);
      response.end("data: [DONE]\n\n");
    };
    const heard: (readonly [number, string])[] = [];
    const got = await engine.generate(request, { timeoutMs: 5_000, onTokens: (count, version) => heard.push([count, version]) });
    expect(heard).toEqual([
      [1, "7"],
      [4, "7"],
      [6, "8"],
    ]);
    expect(got.weightSpans).toEqual([
      { version: 7, from: 0, to: 4, mixed: false },
      { version: 7, from: 4, to: 6, mixed: true },
    ]);
    expect(JSON.parse(server.seen[0]?.body.toString() ?? "")).toMatchObject({ stream: true, sampling_params: { stream_interval: 32 } });
  });

  const broken: readonly (readonly [string, (server: ScriptedEngine) => void, string])[] = [
    [
      "an error event",
      (s) =>
        (s.script = (_r, response) =>
          response.writeHead(200, { "content-type": "text/event-stream" }).end('data: {"error":{"message":"gone"}}\n\n')),
      "engine.unavailable",
    ],
    [
      "a stream refused by an error event",
      (s) =>
        (s.script = (_r, response) =>
          response
            .writeHead(200, { "content-type": "text/event-stream" })
            .end('data: {"error":{"message":"Duplicate request ID detected","code":400}}\n\ndata: [DONE]\n\n')),
      "engine.refused",
    ],
    [
      "a stream without an end",
      (s) =>
        (s.script = (_r, response) =>
          response.writeHead(200, { "content-type": "text/event-stream" }).end(`data: ${JSON.stringify(reply(1, "7", null))}\n\n`)),
      "engine.unavailable",
    ],
    ["a refusal", (s) => (s.script = (_r, response) => answerJson(response, { error: { message: "too long" } }, 400)), "engine.refused"],
    ["a full queue", (s) => (s.script = (_r, response) => answerJson(response, { detail: "full" }, 503)), "engine.unavailable"],
    ["a reset", (s) => (s.script = (_r, response) => response.socket?.resetAndDestroy()), "engine.unavailable"],
    ["silence", (s) => (s.script = () => {}), "engine.unavailable"],
    ["nonsense", (s) => (s.script = (_r, response) => response.writeHead(200).end("<html>")), "engine.unavailable"],
    [
      "unequal lists",
      (s) => (s.script = (_r, response) => answerJson(response, { ...reply(3, "1", { type: "length", length: 3 }), output_ids: [1] })),
      "engine.unavailable",
    ],
    ["no finish reason", (s) => (s.script = (_r, response) => answerJson(response, reply(3, "1", null))), "engine.unavailable"],
  ];
  for (const [name, prepare, expected] of broken) {
    it(`${name} is ${expected}`, async () => {
      prepare(server);
      const onTokens = name.includes("event") || name.includes("stream") ? { onTokens: () => {} } : {};
      await expect(engine.generate(request, { timeoutMs: 300, ...onTokens })).rejects.toSatisfy(code(expected));
    });
  }

  it("a dead server is engine.unavailable; the caller's abort comes back as its reason", async () => {
    server.script = () => {};
    const controller = new AbortController();
    const waiting = engine.generate(request, { timeoutMs: 5_000, signal: controller.signal });
    await server.saw(1);
    controller.abort(new RangeError("enough"));
    await expect(waiting).rejects.toThrow("enough");
    await server.kill();
    await expect(engine.health(500)).rejects.toSatisfy(code("engine.unavailable"));
  });

  it("whatever JSON comes, the answer is a result or a typed error", async () => {
    let body: unknown;
    server.script = (_request, response) => answerJson(response, body);
    const field = fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.constant([[-1, 2, null]]), fc.constant([1, 2]));
    const shape = fc.record(
      {
        text: field,
        output_ids: field,
        meta_info: fc.oneof(
          field,
          fc.dictionary(
            fc.constantFrom("finish_reason", "output_token_logprobs", "input_token_logprobs", "weight_version", "weight_version_spans"),
            field,
          ),
        ),
      },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(fc.oneof(shape, fc.jsonValue()), async (json) => {
        body = json;
        await engine.generate(request, { timeoutMs: 5_000 }).then(
          ({ outputIds, outputLogProbs }) => expect([0, outputIds.length]).toContain(outputLogProbs.length),
          (error: unknown) => expect(code("engine.unavailable")(error)).toBe(true),
        );
      }),
      { numRuns: 150 },
    );
  });
});

describe("control", () => {
  it("sends SGLang's bodies and reads its replies", async () => {
    server.script = ({ path }, response) => {
      if (path === "/server_info")
        return answerJson(response, { weight_version: "default", model_path: "/m", vocab_size: 26, context_length: 64, version: "v" });
      if (path.startsWith("/v1/loads"))
        return answerJson(response, {
          loads: [
            { num_running_reqs: 2, num_waiting_reqs: 1, num_used_tokens: 40 },
            { num_running_reqs: 1, num_waiting_reqs: 0, num_used_tokens: 2 },
          ],
        });
      return answerJson(response, { success: true, weight_version: "4", checksum: "abc" });
    };
    server.version = "3";
    expect(await engine.info()).toEqual({
      url: server.url,
      modelPath: "/m",
      weightVersion: "3",
      vocabularySize: 26,
      contextLength: 64,
      server: "v",
    });
    expect(await engine.load()).toEqual({ running: 3, waiting: 1, tokensTotal: 42 });
    await engine.pause("retract");
    await engine.abort({ rid: "x" });
    await engine.abort({ all: true });
    await engine.flush();
    await engine.resume();
    expect(
      await engine.updateWeights({ version: 4, source: { kind: "shared-memory", path: "/w", checksum: "abc", bytes: 8, tensors: [] } }),
    ).toEqual({
      version: "4",
      checksum: "abc",
    });
    await engine.updateWeights({ version: 4, source: { kind: "directory", path: "/d" } });
    expect(
      server.seen
        .slice(2)
        .map(({ method, path, body }) => [method, path, body.length === 0 ? null : (JSON.parse(body.toString()) as unknown)]),
    ).toEqual([
      ["POST", "/pause_generation", { mode: "retract" }],
      ["POST", "/abort_request", { rid: "x" }],
      ["POST", "/abort_request", { abort_all: true }],
      ["GET", "/flush_cache?timeout=5", null],
      ["POST", "/continue_generation", {}],
      [
        "POST",
        "/update_weights_from_tensor",
        { load_format: "slime_shared_memory", path: "/w", bytes: 8, checksum: "abc", weight_version: "4", flush_cache: false },
      ],
      ["POST", "/update_weights_from_disk", { model_path: "/d", weight_version: "4", flush_cache: false }],
    ]);
  });

  it("weights that were not taken, or are others, are weights.mismatch", async () => {
    const update = () =>
      engine.updateWeights({ version: 4, source: { kind: "shared-memory", path: "/w", checksum: "abc", bytes: 8, tensors: [] } });
    server.script = (_request, response) => answerJson(response, { success: false, message: "checksum" }, 400);
    await expect(update()).rejects.toSatisfy(code("weights.mismatch"));
    server.script = (_request, response) => answerJson(response, { success: true, checksum: "def" });
    await expect(update()).rejects.toSatisfy(code("weights.mismatch"));
  });
});

it("events are the same however the bytes are cut", () => {
  const text = "data: é1\n\n: comment\n\ndata: a\r\ndata: b\r\n\r\ndata: [DONE]\n\n";
  const bytes = Buffer.from(text);
  fc.assert(
    fc.property(fc.array(fc.nat({ max: bytes.length })), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), bytes.length];
      const events = new SseEvents();
      expect(at.slice(1).flatMap((end, i) => events.take(bytes.subarray(at[i], end)))).toEqual(["é1", "a\nb", "[DONE]"]);
    }),
  );
});

it("spans cover the tokens counted, in order", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat({ max: 5 }), fc.nat({ max: 3 }))), (steps) => {
      const counter = new SpanCounter();
      let tokens = 0;
      for (const [more, version] of steps) counter.count((tokens += more), String(version));
      expect(counter.spans.at(-1)?.to ?? 0).toBe(tokens);
      counter.spans.forEach(({ from }, i) => expect(from).toBe(counter.spans[i - 1]?.to ?? 0));
    }),
  );
});
