import type { ServerResponse } from "node:http";
import type { PauseMode } from "@slime/backend";
import { sleep } from "@slime/core";
import { type MemoryTag, memoryTags } from "../engine-state.js";
import { generateRoute } from "./double-generate.js";
import { type DoubleCall, type Json, objectOf, sendInvalid, sendJson, sendText } from "./double-replies.js";
import type { DoubleServer } from "./double-server.js";
import {
  closeSession,
  joinGroup,
  leaveGroup,
  openSession,
  renameVersion,
  updateFromDisk,
  updateFromGroup,
  updateFromTensor,
} from "./double-weight-routes.js";

export interface DoubleRoute {
  readonly methods: readonly string[];
  readonly answer: (call: DoubleCall) => Promise<void>;
}

/** The routes of an SGLang server by path. */
export function doubleRoutes(double: DoubleServer): ReadonlyMap<string, DoubleRoute> {
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

function serverInfo(double: DoubleServer): Json {
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
    max_req_input_len: contextLength - 6,
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

function modelInfo({ modelPath, weightVersion }: DoubleServer): Json {
  return {
    model_path: modelPath,
    tokenizer_path: modelPath,
    weight_version: weightVersion,
    model_type: "qwen3",
    architectures: ["Qwen3ForCausalLM"],
  };
}

function loads({ scheduler, version }: DoubleServer): Json {
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
async function answerHealth(double: DoubleServer, { response }: DoubleCall): Promise<void> {
  const { scheduler, clock } = double;
  if (double.released.size > 0 && scheduler.pause === null) return double.die("a health check met released memory");
  if (scheduler.pause !== null || scheduler.frozen) await sleep(clock, 20_000);
  sendText(response, scheduler.pause !== null || scheduler.frozen ? 503 : 200, "");
}

async function abortRequest({ scheduler }: DoubleServer, body: Json, response: ServerResponse): Promise<void> {
  if (body["abort_all"] === true) scheduler.abort(null);
  else if (typeof body["rid"] === "string" && body["rid"] !== "") scheduler.abort(body["rid"]);
  sendText(response, 200, "");
}

async function pauseGeneration({ scheduler }: DoubleServer, body: Json, response: ServerResponse): Promise<void> {
  const mode = body["mode"] ?? "abort";
  if (mode !== "abort" && mode !== "retract" && mode !== "in_place") return sendInvalid(response, "mode is abort, retract or in_place");
  await scheduler.pauseBy(mode satisfies PauseMode);
  sendJson(response, 200, { message: "Generation paused successfully.", status: "ok" });
}

async function continueGeneration({ scheduler }: DoubleServer, response: ServerResponse): Promise<void> {
  await scheduler.resume();
  sendJson(response, 200, { message: "Generation continued successfully.", status: "ok" });
}

async function flushCache(double: DoubleServer, { query, response }: DoubleCall): Promise<void> {
  const { scheduler, clock, newer } = double;
  const seconds = Number(query.get("timeout") ?? 0);
  await scheduler.whenAwake();
  if (!scheduler.idle && seconds > 0) await Promise.race([scheduler.whenIdle(), sleep(clock, seconds * 1_000)]);
  // Asked to wait, it waits for an idle server, which a paused one with requests never is.
  if (scheduler.idle || (newer && scheduler.pause === "retract" && seconds === 0)) return sendText(response, 200, "Cache flushed.\n");
  sendText(response, 400, seconds > 0 ? "Timed out waiting for idle state." : "Flush cache failed.");
}

async function release(double: DoubleServer, body: Json, response: ServerResponse): Promise<void> {
  const { scheduler, released, options } = double;
  if (!scheduler.idle) return double.die("AssertionError: release_memory_occupation should be called only when server is idle.");
  if (options.memorySaver === true)
    for (const tag of tagsOf(body)) {
      if (released.has(tag)) return double.die("[torch_memory_saver.cpp] Cannot pause allocation that is not active");
      released.add(tag);
    }
  sendText(response, 200, "null");
}

async function regain(double: DoubleServer, body: Json, response: ServerResponse): Promise<void> {
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

function checkWeights(double: DoubleServer, body: Json, response: ServerResponse): void {
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
