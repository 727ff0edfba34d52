import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { keptLog } from "@slime/core/testing";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeHfCheckpoint } from "../hf-checkpoint.js";
import { type RunningEngine, startEmbeddedEngine } from "./start.js";
import { letterTokenizer, servedConfig, servedWeights } from "./testing/tiny-engine.js";

let running: RunningEngine;
let root: string;
const { log, lines } = keptLog();
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "engine-"));
  running = await startEmbeddedEngine({
    model: { kind: "given", config: servedConfig, weights: servedWeights(5), tokenizer: letterTokenizer },
    log,
    limits: { bodyBytesMax: 4_096, kvTokensMax: 1_024, healthMs: 50, runningMax: 16, stepRowsMax: 32 },
  });
});
afterAll(async () => {
  await running.close();
  await rm(root, { recursive: true });
});

type Json = Record<string, unknown>;
async function post(
  path: string,
  body: unknown,
  signal?: AbortSignal,
): Promise<{ readonly status: number; readonly json: Json; readonly text: string }> {
  const reply = await fetch(running.url + path, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  });
  const text = await reply.text();
  return { status: reply.status, text, json: text.startsWith("{") || text.startsWith("[") ? (JSON.parse(text) as Json) : {} };
}
const get = async (path: string) => {
  const reply = await fetch(running.url + path);
  const text = await reply.text();
  return { status: reply.status, text, json: text.startsWith("{") ? (JSON.parse(text) as Json) : {} };
};
const greedy = { temperature: 0, max_new_tokens: 6, ignore_eos: true };

describe("/generate", () => {
  it("answers one prompt in SGLang's shape", async () => {
    const { status, json } = await post("/generate", {
      rid: "one",
      text: "CHJ",
      return_logprob: true,
      logprob_start_len: 0,
      sampling_params: greedy,
    });
    expect(status).toBe(200);
    const ids = json["output_ids"] as number[];
    expect(json).toMatchObject({
      text: letterTokenizer.decode(ids, true),
      meta_info: {
        id: "one",
        finish_reason: { type: "length", length: 6 },
        prompt_tokens: 3,
        completion_tokens: 6,
        cached_tokens: 0,
        weight_version: "0",
        weight_version_spans: [[0, 0, 6]],
        num_retractions: 0,
        output_token_logprobs_length: 6,
      },
    });
    const meta = json["meta_info"] as {
      output_token_logprobs: [number, number, null][];
      input_token_logprobs: [number | null, number, null][];
      e2e_latency: number;
    };
    expect(meta.output_token_logprobs.map(([, id]) => id)).toEqual(ids);
    expect(meta.input_token_logprobs.map(([logProb, id]) => [logProb === null, id])).toEqual([
      [true, 2],
      [false, 7],
      [false, 9],
    ]);
    expect(meta.e2e_latency).toBeGreaterThanOrEqual(0);
  });

  it("answers a list of prompts with a list, parameters per prompt", async () => {
    const { json } = await post("/generate", {
      input_ids: [[2, 7], [3]],
      sampling_params: [greedy, { ...greedy, max_new_tokens: 2 }],
      return_prompt_token_ids: true,
    });
    expect(json).toMatchObject([
      { prompt_token_ids: [2, 7], meta_info: { completion_tokens: 6 } },
      { prompt_token_ids: [3], meta_info: { completion_tokens: 2 } },
    ]);
  });

  it("streams cumulative chunks that end with [DONE]", async () => {
    const { text } = await post("/generate", { text: "CHJ", stream: true, return_logprob: true, sampling_params: greedy });
    const events = text
      .split("\n\n")
      .filter((event) => event !== "")
      .map((event) => event.replace(/^data: /, ""));
    expect(events.at(-1)).toBe("[DONE]");
    const chunks = events.slice(0, -1).map(
      (event) =>
        JSON.parse(event) as {
          text: string;
          output_ids: number[];
          meta_info: { finish_reason: unknown; weight_version: string; output_token_logprobs: unknown[] };
        },
    );
    chunks.forEach((chunk, i) => {
      expect(chunk.output_ids).toEqual(chunks.at(-1)?.output_ids.slice(0, chunk.output_ids.length));
      expect(chunk.output_ids.length).toBeGreaterThan(chunks[i - 1]?.output_ids.length ?? 0);
      expect(chunk.meta_info.output_token_logprobs).toHaveLength(chunk.output_ids.length);
      expect(chunk.text).toBe(letterTokenizer.decode(chunk.output_ids, true));
      expect(chunk.meta_info.finish_reason === null).toBe(i < chunks.length - 1);
    });
    expect(chunks.at(-1)?.output_ids).toHaveLength(6);
  });

  const refused: readonly (readonly [string, unknown, number, RegExp])[] = [
    ["malformed JSON", '{"text": ', 400, /not JSON/],
    ["not an object", [1], 400, /must be a JSON object/],
    ["no prompt", {}, 400, /text or input_ids/],
    ["two prompts", { text: "A", input_ids: [1] }, 400, /only one/],
    ["empty ids", { input_ids: [] }, 400, /not be empty|not empty/],
    ["an id beyond the vocabulary", { input_ids: [1, 26] }, 400, /input_ids\[1\] is 26.*26/],
    ["a negative id", { input_ids: [-1] }, 400, /-1/],
    ["a fractional id", { input_ids: [0.5] }, 400, /0\.5/],
    ["a prompt beyond the context", { input_ids: Array.from({ length: 65 }, () => 1) }, 400, /longer than the model's context length/],
    ["a long text", { text: "A".repeat(3_000) }, 400, /longer than the model's context length/],
    ["too many new tokens", { input_ids: [1], sampling_params: { max_new_tokens: 64 } }, 400, /maximum context length/],
    ["negative temperature", { input_ids: [1], sampling_params: { temperature: -1 } }, 400, /temperature/],
    ["top_p 0", { input_ids: [1], sampling_params: { top_p: 0 } }, 400, /top_p/],
    ["top_k 0", { input_ids: [1], sampling_params: { top_k: 0 } }, 400, /top_k/],
    ["an unknown parameter", { input_ids: [1], sampling_params: { temperatur: 1 } }, 400, /"temperatur"/],
    ["a penalty", { input_ids: [1], sampling_params: { presence_penalty: 1 } }, 400, /presence_penalty is not supported/],
    ["top log-probs", { input_ids: [1], top_logprobs_num: 2 }, 400, /top_logprobs_num is not supported/],
    ["min above max", { input_ids: [1], sampling_params: { min_new_tokens: 9, max_new_tokens: 3 } }, 400, /min_new_tokens/],
    ["an empty stop", { input_ids: [1], sampling_params: { stop: "" } }, 400, /stop must be/],
    ["a huge body", JSON.stringify({ text: "A".repeat(5_000) }), 413, /bodyBytesMax/],
  ];
  for (const [name, body, status, words] of refused) {
    it(`refuses ${name}`, async () => {
      const reply = await post("/generate", body);
      expect(reply.status).toBe(status);
      expect((reply.json["error"] as { message: string }).message).toMatch(words);
    });
  }

  it("answers every body of JSON with 200 or 400, and lives", async () => {
    const value = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom([1, 2], [[1], [2]], "AB", 3, -1, true, {}));
    const params = fc.dictionary(
      fc.constantFrom(
        "max_new_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "stop",
        "stop_token_ids",
        "n",
        "ignore_eos",
        "sampling_seed",
        "x",
      ),
      value,
      { maxKeys: 3 },
    );
    const body = fc.dictionary(
      fc.constantFrom("input_ids", "text", "sampling_params", "rid", "stream", "return_logprob", "logprob_start_len", "top_logprobs_num"),
      fc.oneof(value, params),
      { maxKeys: 4 },
    );
    await fc.assert(
      fc.asyncProperty(fc.oneof(body, fc.jsonValue()), async (json) => {
        const { status, text } = await post("/generate", json);
        expect([200, 400, 413], text).toContain(status);
      }),
      { numRuns: 200 },
    );
    expect(lines.filter(({ level }) => level === "error")).toEqual([]);
    expect((await get("/health_generate")).status).toBe(200);
  });

  it("R1: aborts when the client goes away", async () => {
    running.engine.pause("in_place");
    const gone = new AbortController();
    const reply = post("/generate", { input_ids: [1], sampling_params: greedy }, gone.signal);
    await until(() => running.engine.scheduler.waiting === 1);
    const raw = connect(Number(new URL(running.url).port), "127.0.0.1");
    const body = JSON.stringify({ input_ids: [1], stream: true, sampling_params: greedy });
    raw.write(`POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
    await until(() => running.engine.scheduler.waiting === 2);
    gone.abort();
    raw.destroy();
    await expect(reply).rejects.toThrow();
    await until(() => running.engine.scheduler.idle);
    running.engine.resume();
  });
});

describe("control", () => {
  it("pause, abort, flush and continue", async () => {
    expect(await post("/pause_generation", { mode: "retract" })).toMatchObject({ status: 200, json: { status: "ok" } });
    expect(await post("/pause_generation", { mode: "sideways" })).toMatchObject({ status: 400 });
    expect((await get("/pause_generation")).status).toBe(405);
    const held = post("/generate", { rid: "held", input_ids: [1], sampling_params: greedy });
    await until(() => running.engine.scheduler.waiting === 1);
    expect(await get("/flush_cache")).toMatchObject({ status: 400 });
    expect((await get("/v1/loads?include=core")).json).toMatchObject({ loads: [{ num_running_reqs: 0, num_waiting_reqs: 1 }] });
    expect(await get("/health_generate")).toMatchObject({ status: 503, text: expect.stringContaining("paused") });
    expect((await get("/health")).status).toBe(200);
    expect(await post("/abort_request", { rid: "unknown" })).toMatchObject({ status: 200, text: "" });
    const flushed = get("/flush_cache?timeout=5");
    expect(await post("/abort_request", { rid: "held" })).toMatchObject({ status: 200, text: "" });
    expect(await held).toMatchObject({
      status: 200,
      json: { output_ids: [], meta_info: { finish_reason: { type: "abort", message: "Aborted", status_code: null, err_type: null } } },
    });
    expect(await flushed).toMatchObject({ status: 200 });
    expect(await post("/continue_generation", {})).toMatchObject({ status: 200, json: { status: "ok" } });
  });

  it("a push through shared memory: bytes and checksum decide; nothing is half-loaded", async () => {
    const path = join(root, "weights.bin");
    const weights = servedWeights(6);
    await writeFile(path, new Uint8Array(weights.buffer));
    const push = {
      load_format: "slime_shared_memory",
      path,
      bytes: weights.byteLength,
      checksum: "0".repeat(16),
      weight_version: "7",
      flush_cache: false,
    };
    const before = (await post("/weights_checker", {})).json["per_engine_checksum"];
    expect(await post("/update_weights_from_tensor", push)).toMatchObject({
      status: 400,
      json: { success: false, message: expect.stringContaining("checksum") },
    });
    expect(await post("/update_weights_from_tensor", { ...push, bytes: 12 })).toMatchObject({ status: 400, json: { success: false } });
    expect(await post("/update_weights_from_tensor", { ...push, path: join(root, "none") })).toMatchObject({
      status: 400,
      json: { success: false },
    });
    expect(
      await post("/update_weights_from_tensor", { serialized_named_tensors: ["gAN9"], load_format: "flattened_bucket" }),
    ).toMatchObject({ status: 400, text: expect.stringContaining("slime_shared_memory") });
    expect((await post("/weights_checker", {})).json["per_engine_checksum"]).toBe(before);
    expect((await get("/model_info")).json).toMatchObject({ weight_version: "0" });

    const { message } = (await post("/update_weights_from_tensor", push)).json as { message: string };
    const checksum = /checksum ([0-9a-f]{16}) instead/.exec(message)?.[1];
    expect(await post("/update_weights_from_tensor", { ...push, checksum })).toMatchObject({
      status: 200,
      json: { success: true, weight_version: "7", checksum },
    });
    expect((await post("/weights_checker", {})).json["per_engine_checksum"]).toBe(checksum);
    expect((await get("/get_server_info")).json).toMatchObject({ weight_version: "7", vocab_size: 26, context_length: 64 });
    expect(await post("/generate", { input_ids: [1], sampling_params: greedy })).toMatchObject({
      json: { meta_info: { weight_version: "7", weight_version_spans: [[7, 0, 6]] } },
    });
  });

  it("an update with a flush while paused requests are held is refused", async () => {
    running.engine.pause("in_place");
    const held = post("/generate", { rid: "held", input_ids: [1], sampling_params: greedy });
    await until(() => running.engine.scheduler.waiting === 1);
    expect(await post("/update_weights_from_disk", { model_path: root })).toMatchObject({
      status: 400,
      text: expect.stringContaining("flush_cache"),
    });
    running.engine.resume();
    expect(await held).toMatchObject({ status: 200 });
  });

  it("weights from a directory, of this shape only", async () => {
    const directory = join(root, "hf");
    await writeHfCheckpoint(directory, servedConfig, servedWeights(8), null);
    expect(await post("/update_weights_from_disk", { model_path: directory, weight_version: "8", flush_cache: false })).toMatchObject({
      status: 200,
      json: { success: true },
    });
    expect((await get("/model_info")).json).toMatchObject({ weight_version: "8", model_path: directory });
    expect(await post("/update_weights_from_disk", { model_path: join(root, "nowhere") })).toMatchObject({
      status: 400,
      json: { success: false },
    });
    const other = join(root, "other");
    await writeHfCheckpoint(other, { ...servedConfig, layers: 1 }, servedWeights(8), null).catch(() => {});
    expect(await post("/update_weights_from_disk", { model_path: other })).toMatchObject({ status: 400 });
    expect(await post("/update_weight_version", { new_version: "9" })).toMatchObject({ status: 200, json: { new_version: "9" } });
    await using fromDirectory = await startEmbeddedEngine({ model: { kind: "directory", path: directory } });
    expect(fromDirectory.engine.checksum()).toBe(running.engine.checksum());
  });

  it("metrics, unknown routes, addresses beyond loopback, taken ports", async () => {
    expect((await get("/metrics")).text).toMatch(/^sglang:generation_tokens_total \d+$/m);
    expect((await get("/nothing")).status).toBe(404);
    expect((await get("/get_weight_version")).status).toBe(404);
    const model = { kind: "given", config: servedConfig, weights: null, tokenizer: null } as const;
    await expect(startEmbeddedEngine({ model, host: "0.0.0.0" })).rejects.toSatisfy((error) => SlimeError.is(error, "address.refused"));
    await expect(startEmbeddedEngine({ model, port: Number(new URL(running.url).port) })).rejects.toSatisfy((error) =>
      SlimeError.is(error, "port.taken"),
    );
  });
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
