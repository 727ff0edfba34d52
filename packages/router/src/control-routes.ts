import { engineMetrics } from "./engine-metrics.js";
import { askAll, type EngineAnswer } from "./fan-out.js";
import { type Json, type OwnReply, refusal, reply } from "./own-reply.js";
import type { RouterParts } from "./parts.js";
import type { ForwardRequest } from "./transport.js";

/** Longest part of an engine's text answer that is passed on. */
const answerCharsMax = 4_096;

/** Calls that concern every engine alike, with the method engines take them by; sglang_router has the flush only. */
const controlPaths: ReadonlyMap<string, readonly string[]> = new Map([
  ["/abort_request", ["POST"]],
  ["/pause_generation", ["POST"]],
  ["/continue_generation", ["POST"]],
  ["/flush_cache", ["GET", "POST"]],
  ["/update_weight_version", ["POST"]],
  ["/start_profile", ["GET", "POST"]],
  ["/stop_profile", ["GET", "POST"]],
]);

/** What changes one engine's weights or memory. Sent to whichever engine comes next it would make the fleet's engines differ. */
const perEnginePath =
  /^\/(?:update_weights_|init_weights_|destroy_weights_|send_weights_|(?:begin|end)_weight_|(?:release|resume)_memory_|(?:un)?load_lora_|pull_weights|post_process_weights|weights_checker|set_internal_state)/;

/** Answers what is asked of all engines; null for what is not. Every engine's own answer is in the reply, in order of registration. */
export function controlRoute(parts: RouterParts, request: ForwardRequest, path: string): Promise<OwnReply> | null {
  const methods = controlPaths.get(path);
  if (methods !== undefined) {
    return methods.includes(request.method)
      ? control(parts, request, path)
      : reply(405, refusal(`${path} takes ${methods.join(" or ")}`, "METHOD_NOT_ALLOWED"));
  }
  switch (path) {
    case "/get_server_info":
      return serverInfo(parts, request);
    case "/v1/loads":
    case "/get_load":
      return loads(parts, request);
    case "/engine_metrics":
      return askAll(parts, { ...request, path: "/metrics" }).then((answers) => ({ status: 200, body: engineMetrics(answers) }));
    default:
      return perEnginePath.test(path)
        ? reply(404, refusal(`${path} is for one engine: ask each of those that GET /workers lists`, "ASK_THE_ENGINE"))
        : null;
  }
}

/** 200 when all engines said 200; else 502. */
async function control(parts: RouterParts, request: ForwardRequest, path: string): Promise<OwnReply> {
  const answers = await askAll(parts, request);
  const { watch } = parts.dispatcher;
  for (const { worker, status } of answers) {
    if (status === 200 && path === "/pause_generation") watch.suspend(worker.id, "paused");
    if (status === 200 && path === "/continue_generation") watch.resume(worker.id);
  }
  const done = answers.filter(({ status }) => status === 200).length;
  const isDone = done === answers.length;
  const workers = answers.map(({ worker, status, body }) => ({ worker: worker.url, status, body: body.slice(0, answerCharsMax) }));
  const flushed: Json =
    path === "/flush_cache"
      ? {
          message: `${done} of ${answers.length} engines flushed`,
          workers_flushed: done,
          total_http_workers: answers.length,
          total_workers: answers.length,
        }
      : {};
  return {
    status: isDone ? 200 : 502,
    headers: { "x-request-id": request.id },
    body: { status: isDone ? "ok" : "failed", ...flushed, workers },
  };
}

/** sglang_router's three fields, and what each engine says of itself. */
async function serverInfo(parts: RouterParts, request: ForwardRequest): Promise<OwnReply> {
  const answers = await askAll(parts, { ...request, path: "/server_info" });
  const workers = answers.map(({ worker, status, body }) => ({ worker: worker.url, status, info: parsed(body) }));
  return { status: 200, body: { router_manager: true, routers_count: 1, workers_count: answers.length, workers } };
}

/** The engines' rows in one list, each with its engine, so that sums over rows are sums over the fleet. */
async function loads(parts: RouterParts, request: ForwardRequest): Promise<OwnReply> {
  const answers = await askAll(parts, request);
  const failed = answers.filter(({ status }) => status !== 200);
  const workers = failed.map(({ worker, status, body }) => ({ worker: worker.url, status, body: body.slice(0, answerCharsMax) }));
  return { status: failed.length === 0 ? 200 : 502, body: { loads: answers.flatMap(rowsOf), failed: workers } };
}

function rowsOf({ worker, status, body }: EngineAnswer): readonly Json[] {
  if (status !== 200) return [];
  const value = parsed(body);
  const list = Array.isArray(value) ? value : typeof value === "object" && value !== null && "loads" in value ? value.loads : null;
  return Array.isArray(list) ? list.map((row: unknown) => ({ worker: worker.url, ...(typeof row === "object" ? row : {}) })) : [];
}

/** JSON, or the text as it is. */
function parsed(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return body.slice(0, answerCharsMax);
  }
}
