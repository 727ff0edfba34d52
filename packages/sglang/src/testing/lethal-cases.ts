import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import type { GenerateRequest, SamplingParams } from "@slime/backend";
import type { ErrorCode } from "@slime/core";
import type { HttpServerEngineAdapter } from "../http-server-engine-adapter.js";

/** A running server, alone, and the adapter on it. Every case gets a new one. */
export interface LethalStage {
  readonly url: string;
  /** SGLang's version: "0.5.15". */
  readonly version: string;
  readonly modelPath: string;
  readonly vocabulary: number;
  /** New tokens of a request that outlasts a few calls. */
  readonly longTokens: number;
  /** A call without an answer for this long hangs. */
  readonly silenceMs: number;
  /** A directory to write into. */
  readonly scratch: string;
  readonly adapter: HttpServerEngineAdapter;
}

/** What a call does to a stock server that is sent it as it is. */
export type LethalEffect = "dies" | "hangs" | "errs" | "none";

/**
 * One way to lose a server, both ways: `raw` sends it to the bare routes; `adapted` does the same through the adapter, which refuses with one
 * of `codes` while the server lives on. From what was measured on SGLang 0.5.15 to 0.5.23.
 */
export interface LethalCase {
  readonly name: string;
  /** Can only be had of a server with --enable-memory-saver, on a GPU. */
  readonly memorySaver: boolean;
  readonly effect: (version: string) => LethalEffect;
  readonly raw: (stage: LethalStage) => Promise<void>;
  readonly adapted: (stage: LethalStage) => Promise<unknown>;
  readonly codes: readonly ErrorCode[];
}

const always = (effect: LethalEffect) => () => effect;
const until23 = (version: string): LethalEffect => (version.startsWith("0.5.23") ? "none" : "dies");

/** The table: section by section what a client can do wrong. */
export const lethalCases: readonly LethalCase[] = [
  {
    name: "a token id outside the vocabulary",
    memorySaver: false,
    effect: always("dies"),
    raw: async (stage) => void (await rawGenerate(stage, { input_ids: [3, stage.vocabulary] })),
    adapted: ({ adapter, vocabulary }) => adapter.generate(lethalRequest({}, { input_ids: [3, vocabulary] }), { timeoutMs: 10_000 }),
    codes: ["engine.refused"],
  },
  {
    name: "an unknown sampling parameter",
    memorySaver: false,
    effect: always("errs"),
    raw: async (stage) => void (await rawGenerate(stage, { sampling_params: { temperatur: 1 } })),
    adapted: ({ adapter }) => adapter.generate(lethalRequest({ temperatur: 1 } as Partial<SamplingParams>), { timeoutMs: 10_000 }),
    codes: ["engine.refused"],
  },
  {
    name: "an update with a flush while requests are held",
    memorySaver: false,
    effect: until23,
    raw: async (stage) => {
      await rawFlight(stage);
      await rawCall(stage.url, "/pause_generation", { mode: "in_place" });
      await rawCall(stage.url, "/update_weights_from_disk", { model_path: stage.modelPath, flush_cache: true });
    },
    adapted: async (stage) => {
      await rawFlight(stage);
      await stage.adapter.pause("in_place");
      await stage.adapter.updateWeights({ version: 1, source: { kind: "directory", path: stage.modelPath } });
      await stage.adapter.flush();
    },
    codes: ["engine.refused"],
  },
  {
    name: "a release of memory while busy",
    memorySaver: false,
    effect: always("dies"),
    raw: async (stage) => {
      await rawFlight(stage);
      await rawCall(stage.url, "/release_memory_occupation", {});
    },
    adapted: async (stage) => {
      await rawFlight(stage);
      await stage.adapter.release();
    },
    codes: ["engine.state", "unsupported"],
  },
  {
    name: "generation while memory is released",
    memorySaver: true,
    effect: always("dies"),
    raw: async (stage) => {
      await rawCall(stage.url, "/release_memory_occupation", {});
      await rawGenerate(stage, {});
    },
    adapted: async ({ adapter }) => {
      await released(adapter);
      await adapter.generate(lethalRequest(), { timeoutMs: 10_000 });
    },
    codes: ["engine.state"],
  },
  {
    name: "going on while memory is released, with requests that wait",
    memorySaver: true,
    effect: always("dies"),
    raw: async (stage) => {
      await rawCall(stage.url, "/pause_generation", {});
      await rawCall(stage.url, "/release_memory_occupation", {});
      const waiting = rawGenerate(stage, {});
      await rawCall(stage.url, "/continue_generation", {});
      await waiting;
    },
    adapted: async ({ adapter }) => {
      await released(adapter);
      await adapter.resume();
    },
    codes: ["engine.state"],
  },
  {
    name: "a health check while memory is released",
    memorySaver: true,
    effect: always("dies"),
    raw: async (stage) => {
      await rawCall(stage.url, "/release_memory_occupation", {});
      await rawCall(stage.url, "/health_generate", null);
    },
    adapted: async ({ adapter }) => {
      await released(adapter);
      await adapter.health(5_000);
    },
    codes: ["engine.state"],
  },
  {
    name: "a release of what is released",
    memorySaver: true,
    effect: always("dies"),
    raw: async (stage) => {
      for (const _ of [1, 2]) await rawCall(stage.url, "/release_memory_occupation", { tags: ["kv_cache"] });
    },
    adapted: async ({ adapter }) => {
      await released(adapter);
      await adapter.release(["kv_cache"]);
    },
    codes: ["engine.state"],
  },
  {
    name: "an update of weights that are released",
    memorySaver: true,
    effect: always("dies"),
    raw: async (stage) => {
      await rawCall(stage.url, "/release_memory_occupation", { tags: ["weights"] });
      await rawCall(stage.url, "/update_weights_from_disk", { model_path: stage.modelPath, flush_cache: false });
    },
    adapted: async ({ adapter, modelPath }) => {
      await released(adapter);
      await adapter.updateWeights({ version: 1, source: { kind: "directory", path: modelPath } });
    },
    codes: ["engine.state"],
  },
  {
    name: "a resume of memory that is there",
    memorySaver: false,
    effect: always("dies"),
    raw: async (stage) => void (await rawCall(stage.url, "/resume_memory_occupation", { tags: ["kv_cache"] })),
    adapted: ({ adapter }) => adapter.resumeMemory(["kv_cache"]),
    codes: ["engine.state", "unsupported"],
  },
  {
    name: "an update from a group that was not joined",
    memorySaver: false,
    effect: until23,
    raw: async (stage) => {
      const body = { names: ["model.norm.weight"], dtypes: ["float32"], shapes: [[8]], group_name: "nobody", flush_cache: false };
      await rawCall(stage.url, "/update_weights_from_distributed", body);
    },
    adapted: ({ adapter }) => adapter.updateFromGroup("nobody", [{ name: "model.norm.weight", dtype: "float32", shape: [8] }], 1),
    codes: ["engine.state"],
  },
  {
    name: "weights of another shape from disk",
    memorySaver: false,
    effect: always("dies"),
    raw: async (stage) => {
      const model_path = await transposedCopy(stage.modelPath, join(stage.scratch, "transposed"));
      await rawCall(stage.url, "/update_weights_from_disk", { model_path, flush_cache: false });
    },
    adapted: async ({ adapter, modelPath, scratch }) => {
      const path = await transposedCopy(modelPath, join(scratch, "transposed"));
      await adapter.updateWeights({ version: 1, source: { kind: "directory", path } });
    },
    codes: ["weights.mismatch"],
  },
  {
    name: "an abort of what a pause in place holds",
    memorySaver: false,
    effect: always("hangs"),
    raw: async (stage) => {
      await rawFlight(stage);
      await rawCall(stage.url, "/pause_generation", { mode: "in_place" });
      await rawCall(stage.url, "/pause_generation", { mode: "abort" }, stage.silenceMs);
    },
    adapted: async (stage) => {
      await rawFlight(stage);
      await stage.adapter.pause("in_place");
      await stage.adapter.pause("abort");
    },
    codes: ["engine.state"],
  },
];

let requests = 0;

/** A short greedy request, with these changes. */
export function lethalRequest(params: Partial<SamplingParams> = {}, fields: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    rid: `lethal-${requests++}`,
    input_ids: [3, 4, 5],
    sampling_params: { temperature: 0, top_p: 1, top_k: -1, max_new_tokens: 4, ignore_eos: true, ...params },
    return_logprob: true,
    ...fields,
  };
}

export interface RawAnswer {
  /** 0: the connection broke; −1: no answer in time. */
  readonly status: number;
  readonly text: string;
}

/** One call on a connection of its own. A body of null makes it a GET. Never rejects: a server that dies is an answer here. */
export function rawCall(url: string, path: string, body: unknown, timeoutMs = 20_000): Promise<RawAnswer> {
  return new Promise((resolve) => {
    const text = body === null ? undefined : JSON.stringify(body);
    const headers = text === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
    const options = { method: text === undefined ? "GET" : "POST", headers, agent: false, signal: AbortSignal.timeout(timeoutMs) } as const;
    const request = httpRequest(new URL(path, url), options, (reply) => {
      const chunks: Buffer[] = [];
      reply.on("data", (chunk: Buffer) => chunks.push(chunk));
      reply.on("error", () => resolve({ status: 0, text: Buffer.concat(chunks).toString("utf8") }));
      reply.on("end", () => resolve({ status: reply.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") }));
    });
    request.on("error", (error) =>
      resolve({ status: error.name === "AbortError" || error.name === "TimeoutError" ? -1 : 0, text: error.message }),
    );
    request.end(text);
  });
}

function rawGenerate({ url }: LethalStage, fields: Readonly<Record<string, unknown>>): Promise<RawAnswer> {
  return rawCall(url, "/generate", { ...lethalRequest(), ...fields });
}

/** A long request that somebody else sends, past the adapter; returns with its first token. */
function rawFlight({ url, longTokens }: LethalStage): Promise<void> {
  return new Promise((resolve, reject) => {
    const body = JSON.stringify({ ...lethalRequest({ max_new_tokens: longTokens }), stream: true });
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    const request = httpRequest(new URL("/generate", url), { method: "POST", headers, agent: false }, (reply) => {
      reply.once("data", () => resolve());
      reply.on("error", () => {});
      reply.resume();
    });
    request.on("error", reject);
    request.end(body);
  });
}

async function released(adapter: HttpServerEngineAdapter): Promise<void> {
  await adapter.pause("abort");
  await adapter.flush();
  await adapter.release();
}

/** The same checkpoint with one matrix turned on its side: as many bytes, another shape. */
export async function transposedCopy(modelPath: string, directory: string): Promise<string> {
  await mkdir(directory, { recursive: true });
  for (const name of await readdir(modelPath)) {
    const bytes = await readFile(join(modelPath, name));
    await writeFile(join(directory, name), name.endsWith(".safetensors") ? transposed(bytes) : bytes);
  }
  return directory;
}

function transposed(file: Buffer): Buffer {
  const head = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.subarray(8, 8 + head).toString("utf8")) as Record<string, { shape?: number[] }>;
  const matrix = Object.values(header).find(({ shape }) => shape?.length === 2 && shape[0] !== shape[1]);
  if (matrix?.shape !== undefined) matrix.shape = [...matrix.shape].reverse();
  const json = JSON.stringify(header);
  const text = Buffer.from(json.padEnd(Math.ceil(json.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, file.subarray(8 + head)]);
}
