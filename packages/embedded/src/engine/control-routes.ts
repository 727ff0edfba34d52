import type { ServerResponse } from "node:http";
import type { PauseMode } from "@slime/backend";
import { SlimeError } from "@slime/core";
import type { EmbeddedEngine, WeightSource } from "./engine.js";
import { flag, object } from "./generate-request.js";
import { sendJson, sendText } from "./generate-route.js";
import { refusal } from "./options.js";

type Json = Readonly<Record<string, unknown>>;

/** POST /pause_generation: `{mode}`, "abort" unless given. */
export function pauseGeneration(engine: EmbeddedEngine, body: unknown, response: ServerResponse): void {
  const mode = object(body ?? {}, "the request body")["mode"] ?? "abort";
  if (mode !== "abort" && mode !== "retract" && mode !== "in_place")
    throw refusal(400, `mode must be "abort", "retract" or "in_place", got ${JSON.stringify(mode)?.slice(0, 40)}.`);
  engine.pause(mode satisfies PauseMode);
  sendJson(response, 200, { message: "Generation paused successfully.", status: "ok" });
}

/** POST /continue_generation. Harmless when not paused. */
export function continueGeneration(engine: EmbeddedEngine, response: ServerResponse): void {
  engine.resume();
  sendJson(response, 200, { message: "Generation continued successfully.", status: "ok" });
}

/** POST /abort_request: `{rid}` or `{abort_all: true}`. An unknown rid is answered like a known one: it may have ended a moment ago. */
export function abortRequest(engine: EmbeddedEngine, body: unknown, response: ServerResponse): void {
  const fields = object(body, "the request body");
  if (flag(fields["abort_all"], "abort_all")) engine.abort({ all: true });
  else if (typeof fields["rid"] === "string") engine.abort({ rid: fields["rid"] });
  else throw refusal(400, 'The body must hold rid (a string) or "abort_all": true.');
  response.writeHead(200, { "content-length": 0 });
  response.end();
}

/** GET or POST /flush_cache, `?timeout=` seconds to wait for idleness first. 400 while anything runs or waits. */
export async function flushCache(engine: EmbeddedEngine, query: URLSearchParams, response: ServerResponse): Promise<void> {
  const seconds = Number(query.get("timeout") ?? 0);
  if (!(seconds >= 0 && seconds <= 600)) throw refusal(400, "timeout must be between 0 and 600 seconds.");
  await engine.flush(seconds * 1_000);
  sendText(response, 200, "Cache flushed.\n");
}

/** POST /update_weights_from_disk: `{model_path, weight_version?}`, a Hugging Face directory of the served shape. */
export async function updateWeightsFromDisk(engine: EmbeddedEngine, body: unknown, response: ServerResponse): Promise<void> {
  const fields = object(body, "the request body");
  const path = text(fields, "model_path");
  const format = fields["load_format"] ?? null;
  if (format !== null && format !== "auto" && format !== "safetensors")
    throw refusal(400, `load_format ${JSON.stringify(format)} is not known here; the embedded engine reads safetensors.`);
  await update(engine, fields, { kind: "directory", path }, response);
}

/**
 * Weights that lie in shared memory: `{load_format: "slime_shared_memory", path, checksum, bytes, weight_version}`.
 * SGLang's own bodies are pickles of GPU handles; they are refused, since reading one would run the sender's code.
 */
export async function updateWeightsFromTensor(engine: EmbeddedEngine, body: unknown, response: ServerResponse): Promise<void> {
  const fields = object(body, "the request body");
  if (fields["load_format"] !== "slime_shared_memory") {
    throw refusal(
      400,
      'The embedded engine takes load_format "slime_shared_memory" with path, bytes and checksum only; it reads no serialized (pickled) tensors.',
    );
  }
  const bytes = fields["bytes"];
  if (typeof bytes !== "number" || !Number.isSafeInteger(bytes) || bytes <= 0)
    throw refusal(400, "bytes must be the number of bytes of all parameters.");
  await update(engine, fields, { kind: "shared-memory", path: text(fields, "path"), bytes, checksum: text(fields, "checksum") }, response);
}

/** Changes the weights' name alone. As SGLang's, it aborts what runs unless told not to. */
export function updateWeightVersion(engine: EmbeddedEngine, body: unknown, response: ServerResponse): void {
  const fields = object(body, "the request body");
  const version = text(fields, "new_version");
  engine.renameVersion(version);
  if (flag(fields["abort_all_requests"] ?? true, "abort_all_requests")) engine.abort({ all: true });
  sendJson(response, 200, { success: true, message: `Weight version updated to ${version}`, new_version: version });
}

async function update(engine: EmbeddedEngine, fields: Json, source: WeightSource, response: ServerResponse): Promise<void> {
  const version = fields["weight_version"] ?? null;
  if (version !== null && typeof version !== "string") throw refusal(400, 'weight_version must be a string, such as "7".');
  // SGLang flushes by default and dies when requests are held. Here there is nothing to flush, but saying yes while old caches live on would be untrue.
  if (flag(fields["flush_cache"] ?? true, "flush_cache") && engine.scheduler.paused && !engine.scheduler.idle) {
    throw refusal(
      400,
      'flush_cache is true (its default) while paused requests keep their caches; send flush_cache: false, or pause with mode "abort" first.',
    );
  }
  try {
    const done = await engine.updateWeights(source, version);
    sendJson(response, 200, {
      success: true,
      message: "Succeeded to update model weights.",
      num_paused_requests: engine.scheduler.paused ? engine.scheduler.running + engine.scheduler.waiting : 0,
      weight_version: done.version,
      checksum: done.checksum,
    });
  } catch (error) {
    if (!SlimeError.isAny(error) || SlimeError.is(error, "engine.refused")) throw error;
    sendJson(response, 400, { success: false, message: error.message, error: { message: error.message, code: error.code } });
  }
}

function text(fields: Json, name: string): string {
  const value = fields[name];
  if (typeof value === "string" && value !== "") return value;
  throw refusal(400, `${name} must be a string, not empty.`);
}
