import type { ServerResponse } from "node:http";
import type { PauseMode } from "@slime/backend";
import { sleep } from "@slime/core";
import { type MemoryTag, memoryTags } from "../engine-state.js";
import { generateRoute } from "./double-generate.js";
import { type DoublePayload, directoryTensors } from "./double-weights.js";
import type { SglangDouble } from "./sglang-double.js";

export interface DoubleCall {
  readonly query: URLSearchParams;
  readonly text: string;
  readonly response: ServerResponse;
}

export interface DoubleRoute {
  readonly methods: readonly string[];
  readonly answer: (call: DoubleCall) => Promise<void>;
}

export type Json = Readonly<Record<string, unknown>>;

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  if (!response.destroyed) response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

export function sendText(response: ServerResponse, status: number, text: string): void {
  if (!response.destroyed) response.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(text);
}

/** As FastAPI refuses a body that does not fit. */
export function sendInvalid(response: ServerResponse, message: string): void {
  sendJson(response, 400, { object: "error", message: `1 validation error: ${message}`, type: "Bad Request", param: null, code: 400 });
}

/** A body's object; null: it is none. */
export function objectOf(text: string): Json | null {
  try {
    const value: unknown = JSON.parse(text === "" ? "{}" : text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : null;
  } catch {
    return null;
  }
}

/** The routes of an SGLang server by path. */
export function doubleRoutes(double: SglangDouble): ReadonlyMap<string, DoubleRoute> {
  const get = (answer: DoubleRoute["answer"]): DoubleRoute => ({ methods: ["GET"], answer });
  const post = (answer: (body: Json, call: DoubleCall) => Promise<void>, methods: readonly string[] = ["POST"]): DoubleRoute => ({
    methods,
    answer: async (call) => {
      const body = objectOf(call.text);
      return body === null ? sendInvalid(call.response, "the body is no JSON object") : answer(body, call);
    },
  });
  const both = ["GET", "POST"];
  const info = get(async ({ response }) => {
    // It asks the scheduler for its internal state.
    await double.scheduler.whenAwake();
    sendJson(response, 200, serverInfo(double));
  });
  const model = get(async ({ response }) => sendJson(response, 200, modelInfo(double)));
  const health = get((call) => answerHealth(double, call));
  const session: readonly (readonly [string, DoubleRoute])[] = double.newer
    ? [
        ["/begin_weight_update", post((_body, { response }) => openSession(double, response))],
        ["/end_weight_update", post((_body, { response }) => closeSession(double, response))],
      ]
    : [];
  return new Map<string, DoubleRoute>([
    ["/generate", { methods: ["POST", "PUT"], answer: (call) => generateRoute(double, call) }],
    ["/health", health],
    ["/health_generate", health],
    ["/server_info", info],
    ["/get_server_info", info],
    ["/model_info", model],
    ["/get_model_info", model],
    ["/v1/loads", get(async ({ response }) => sendJson(response, 200, loads(double)))],
    ["/abort_request", post((body, { response }) => abortRequest(double, body, response))],
    ["/pause_generation", post((body, { response }) => pauseGeneration(double, body, response))],
    ["/continue_generation", post((_body, { response }) => continueGeneration(double, response))],
    ["/flush_cache", { methods: both, answer: (call) => flushCache(double, call) }],
    ["/update_weights_from_disk", post((body, { response }) => updateFromDisk(double, body, response))],
    ["/update_weights_from_tensor", post((body, { response }) => updateFromTensor(double, body, response))],
    ["/update_weights_from_distributed", post((body, { response }) => updateFromGroup(double, body, response))],
    ["/init_weights_update_group", post(async (body, { response }) => joinGroup(double, body, response))],
    ["/destroy_weights_update_group", post(async (body, { response }) => leaveGroup(double, body, response))],
    ["/update_weight_version", post(async (body, { response }) => renameVersion(double, body, response))],
    ["/release_memory_occupation", post((body, { response }) => release(double, body, response), both)],
    ["/resume_memory_occupation", post((body, { response }) => regain(double, body, response), both)],
    ["/weights_checker", post(async (body, { response }) => checkWeights(double, body, response), both)],
    ...session,
  ]);
}

function serverInfo(double: SglangDouble): Json {
  const { version, options, contextLength, weightVersion, modelPath } = double;
  return {
    version,
    status: "ready",
    model_path: modelPath,
    weight_version: weightVersion,
    device: options.device ?? "cuda",
    dtype: "float32",
    tp_size: 1,
    pp_size: 1,
    dp_size: 1,
    ep_size: 1,
    nnodes: 1,
    context_length: contextLength,
    max_req_input_len: contextLength - 5,
    disaggregation_mode: "null",
    disaggregation_bootstrap_port: 8998,
    disable_overlap_schedule: true,
    disable_radix_cache: false,
    enable_memory_saver: options.memorySaver ?? false,
    enable_weights_cpu_backup: options.weightsBackup ?? false,
    enable_metrics: false,
    enable_dp_attention: false,
    internal_states: [{ memory_usage: {}, last_gen_throughput: 0 }],
    ...options.info,
  };
}

function modelInfo({ modelPath, weightVersion }: SglangDouble): Json {
  return {
    model_path: modelPath,
    tokenizer_path: modelPath,
    weight_version: weightVersion,
    model_type: "qwen3",
    architectures: ["Qwen3ForCausalLM"],
  };
}

function loads({ scheduler, version }: SglangDouble): Json {
  const row = {
    dp_rank: 0,
    num_running_reqs: scheduler.running.size,
    num_waiting_reqs: scheduler.queued.length,
    num_used_tokens: scheduler.tokens,
    max_total_num_tokens: 100_000,
  };
  return { timestamp: new Date(0).toISOString(), version, loads: [row] };
}

/** Both routes generate a token: paused or stuck there is none, and 503 comes after 20 s. */
async function answerHealth(double: SglangDouble, { response }: DoubleCall): Promise<void> {
  const { scheduler, clock } = double;
  if (double.released.size > 0 && scheduler.pause === null) return double.die("a health check met released memory");
  if (scheduler.pause !== null || scheduler.frozen) await sleep(clock, 20_000);
  sendText(response, scheduler.pause !== null || scheduler.frozen ? 503 : 200, "");
}

async function abortRequest({ scheduler }: SglangDouble, body: Json, response: ServerResponse): Promise<void> {
  if (body["abort_all"] === true) scheduler.abort(null);
  else if (typeof body["rid"] === "string" && body["rid"] !== "") scheduler.abort(body["rid"]);
  sendText(response, 200, "");
}

async function pauseGeneration({ scheduler }: SglangDouble, body: Json, response: ServerResponse): Promise<void> {
  const mode = body["mode"] ?? "abort";
  if (mode !== "abort" && mode !== "retract" && mode !== "in_place") return sendInvalid(response, "mode is abort, retract or in_place");
  await scheduler.pauseBy(mode satisfies PauseMode);
  sendJson(response, 200, { message: "Generation paused successfully.", status: "ok" });
}

async function continueGeneration({ scheduler }: SglangDouble, response: ServerResponse): Promise<void> {
  await scheduler.resume();
  sendJson(response, 200, { message: "Generation continued successfully.", status: "ok" });
}

async function flushCache(double: SglangDouble, { query, response }: DoubleCall): Promise<void> {
  const { scheduler, clock, newer } = double;
  const seconds = Number(query.get("timeout") ?? 0);
  await scheduler.whenAwake();
  if (!scheduler.idle && seconds > 0) await Promise.race([scheduler.whenIdle(), sleep(clock, seconds * 1_000)]);
  if (scheduler.idle || (newer && scheduler.pause === "retract")) return sendText(response, 200, "Cache flushed.\n");
  sendText(response, 400, seconds > 0 ? "Timed out waiting for idle state." : "Flush cache failed.");
}

async function openSession(double: SglangDouble, response: ServerResponse): Promise<void> {
  await double.scheduler.exclusive(() => {
    if (double.sessionOpen) return sendJson(response, 400, { success: false, message: "a weight-update session is already open" });
    double.sessionOpen = true;
    sendJson(response, 200, { success: true, message: "Success" });
  });
}

async function closeSession(double: SglangDouble, response: ServerResponse): Promise<void> {
  await double.scheduler.exclusive(() => {
    if (!double.sessionOpen) return sendJson(response, 400, { success: false, message: "no weight-update session is open" });
    double.sessionOpen = false;
    sendJson(response, 200, { success: true, message: "Success" });
  });
}

/** What follows every update: a flush unless told otherwise, which older servers must not fail; then the version. */
function updated(double: SglangDouble, body: Json, response: ServerResponse, more: Json = {}): void {
  if (body["flush_cache"] !== false && !double.scheduler.idle) {
    if (!double.newer) return double.die("AssertionError: Cache flush failed after updating weights");
    return sendJson(response, 400, { success: false, message: "Weights were updated, but the cache was not flushed", ...more });
  }
  rename(double, body["weight_version"]);
  sendJson(response, 200, { success: true, message: "Success", ...more });
}

function rename(double: SglangDouble, version: unknown): void {
  if (typeof version !== "string" || version === double.weightVersion) return;
  double.scheduler.versionChanged(double.weightVersion);
  double.weightVersion = version;
}

async function updateFromDisk(double: SglangDouble, body: Json, response: ServerResponse): Promise<void> {
  const path = String(body["model_path"]);
  const tensors = await directoryTensors(path).catch(() => null);
  await double.scheduler.exclusive(() => {
    if (tensors === null)
      return sendJson(response, 400, {
        success: false,
        message: "Failed to get weights iterator: Repo id must use alphanumeric chars",
        num_paused_requests: 0,
      });
    if (double.released.has("weights")) return double.die("Pointer argument cannot be accessed: weights are released");
    const wrong = double.weights.put(tensors);
    if (wrong !== null) return double.die(`AssertionError: Attempted to load weight ${wrong} of another shape`);
    double.modelPath = path;
    updated(double, body, response, { num_paused_requests: 0 });
  });
}

async function updateFromTensor(double: SglangDouble, body: Json, response: ServerResponse): Promise<void> {
  const payloads = body["serialized_named_tensors"];
  const [first] = Array.isArray(payloads) ? (payloads as readonly unknown[]) : [];
  const payload = typeof first === "string" ? objectOf(Buffer.from(first, "base64").toString("utf8")) : null;
  if (payload === null) return sendInvalid(response, "serialized_named_tensors: invalid base64");
  await double.scheduler.exclusive(() => {
    if (double.newer && !double.sessionOpen)
      return sendJson(response, 400, {
        success: false,
        message: "update_weights_from_tensor must run between begin_weight_update() and end_weight_update()",
      });
    if (double.released.has("weights")) return double.die("Pointer argument cannot be accessed: weights are released");
    const wrong = double.weights.put((payload as unknown as DoublePayload).tensors);
    if (wrong !== null) return double.die(`AssertionError: param ${wrong} has another shape`);
    updated(double, body, response);
  });
}

async function updateFromGroup(double: SglangDouble, body: Json, response: ServerResponse): Promise<void> {
  const group = String(body["group_name"]);
  await double.scheduler.exclusive(() => {
    if (double.newer && !double.sessionOpen)
      return sendJson(response, 400, {
        success: false,
        message: "update_weights_from_distributed must run between begin_weight_update() and end_weight_update()",
      });
    if (!double.groups.has(group)) {
      if (!double.newer) return double.die(`AssertionError: Group ${group} not in []`);
      return sendJson(response, 400, { success: false, message: `Failed to receive weights: Group ${group} not in []` });
    }
    updated(double, body, response);
  });
}

function joinGroup({ groups }: SglangDouble, body: Json, response: ServerResponse): void {
  groups.add(String(body["group_name"]));
  sendJson(response, 200, { success: true, message: "Succeeded to initialize custom process group." });
}

function leaveGroup({ groups }: SglangDouble, body: Json, response: ServerResponse): void {
  const there = groups.delete(String(body["group_name"]));
  sendJson(response, there ? 200 : 400, { success: there, message: there ? "Succeeded" : "The group to be destroyed does not exist." });
}

function renameVersion(double: SglangDouble, body: Json, response: ServerResponse): void {
  if (body["abort_all_requests"] !== false) double.scheduler.abort(null);
  rename(double, body["new_version"]);
  sendJson(response, 200, { success: true, message: "Weight version updated", new_version: body["new_version"] });
}

async function release(double: SglangDouble, body: Json, response: ServerResponse): Promise<void> {
  const { scheduler, released, options } = double;
  if (!scheduler.idle) return double.die("AssertionError: release_memory_occupation should be called only when server is idle.");
  if (options.memorySaver === true)
    for (const tag of tagsOf(body)) {
      if (released.has(tag)) return double.die("[torch_memory_saver.cpp] Cannot pause allocation that is not active");
      released.add(tag);
    }
  sendText(response, 200, "null");
}

async function regain(double: SglangDouble, body: Json, response: ServerResponse): Promise<void> {
  const { released, options } = double;
  if (options.memorySaver === true)
    for (const tag of tagsOf(body)) {
      if (!released.delete(tag)) return double.die(`KeyError: '${tag}'`);
      if (tag === "weights" && options.weightsBackup !== true) double.weights.forget();
    }
  sendText(response, 200, "null");
}

function tagsOf(body: Json): readonly MemoryTag[] {
  const tags = Array.isArray(body["tags"]) ? (body["tags"] as readonly MemoryTag[]) : [];
  return tags.length === 0 ? memoryTags : tags;
}

function checkWeights(double: SglangDouble, body: Json, response: ServerResponse): void {
  const action = body["action"] ?? "checksum";
  if (double.released.has("weights")) return double.die("Pointer argument cannot be accessed: weights are released");
  if (!["checksum", "snapshot", "compare", "reset_tensors"].includes(String(action)))
    return sendJson(response, 400, { success: false, message: `Unsupported ${String(action)}` });
  if ((double.options.device ?? "cuda") === "cpu" && action !== "snapshot")
    return sendJson(response, 400, { success: false, message: "No CUDA GPUs are available" });
  const sum = double.weights.seed.toString(16).padStart(16, "0");
  sendJson(response, 200, {
    success: true,
    message: "Success.",
    ranks: [{ checksums: {}, per_gpu_checksum: sum }],
    per_engine_checksum: sum,
  });
}
