import type { EngineRole } from "@slime/backend";
import { SlimeError } from "@slime/core";
import { type Worker, workerView } from "./fleet.js";
import { metricsText } from "./metrics.js";
import { type Json, type OwnReply, refusal, reply } from "./own-reply.js";
import type { RouterParts } from "./parts.js";

/** Answers the routes that are the router's own; null for those of engines. Bodies and replies of /workers are sglang_router's; `fence`, `open` and `drain` are ours. */
export function managementRoute(parts: RouterParts, method: string, path: string, search: string, body: Buffer): Promise<OwnReply> | null {
  const { fleet } = parts.dispatcher;
  const get = (make: () => unknown) =>
    method === "GET" ? reply(200, make()) : reply(405, refusal(`${path} takes GET`, "METHOD_NOT_ALLOWED"));
  switch (path) {
    case "/health":
    case "/liveness":
      return get(() => "OK");
    case "/readiness":
    case "/health_generate": {
      const { able, isReady } = fleet;
      return reply(isReady ? 200 : 503, {
        status: isReady ? "ready" : "not ready",
        healthy_workers: able,
        total_workers: fleet.workers.length,
      });
    }
    case "/metrics":
      return get(() => metricsText(parts.dispatcher));
    case "/stats":
      return get(() => ({
        workers: fleet.workers.map(workerView),
        requests: parts.dispatcher.counts.requests,
        failures: parts.dispatcher.counts.failures,
        retries: parts.dispatcher.counts.retries,
      }));
    case "/get_loads":
      return get(() => ({ workers: fleet.workers.map(({ url, inFlight }) => ({ worker: url, load: inFlight })) }));
    case "/list_workers":
      return get(() => ({ urls: fleet.workers.map(({ url }) => url) }));
    case "/add_worker":
      return addWorker(parts, { url: queryUrl(search) ?? bodyUrl(body), search });
    case "/remove_worker":
      return removeWorker(parts, fleet.byUrl(normalUrl(queryUrl(search) ?? bodyUrl(body) ?? "") ?? "")?.id ?? null);
    case "/workers":
      if (method === "GET") return reply(200, workerList(parts));
      if (method === "POST") return postWorker(parts, body, search);
      return reply(405, refusal("/workers takes GET or POST", "METHOD_NOT_ALLOWED"));
    default:
      return path.startsWith("/workers/") ? workerRoute(parts, method, path.slice("/workers/".length), body) : null;
  }
}

function workerRoute(parts: RouterParts, method: string, rest: string, body: Buffer): Promise<OwnReply> {
  const { dispatcher } = parts;
  const [id = "", verb] = rest.split("/", 2);
  if (!/^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/.test(id))
    return reply(400, refusal(`${id.slice(0, 80)} is not a worker id (a UUID); GET /workers lists them`, "BAD_REQUEST"));
  const worker = dispatcher.fleet.get(id);
  if (worker === undefined) return reply(404, refusal("Worker ID not found", "WORKER_NOT_FOUND"));
  switch (`${method} ${verb ?? ""}`) {
    case "GET ":
      return reply(200, workerJson(parts, worker));
    case "DELETE ":
      return removeWorker(parts, id);
    case "POST fence":
      return dispatcher.fence(id).then(() => ({ status: 200, body: workerJson(parts, worker) }));
    case "POST open": {
      const { version } = parseJson(body);
      if (typeof version !== "number" || !Number.isSafeInteger(version) || version < 0)
        return reply(400, refusal('the body must be {"version": N}, N a whole number', "BAD_REQUEST"));
      dispatcher.open(id, version);
      return reply(200, workerJson(parts, worker));
    }
    case "POST drain": {
      const { timeout_ms: timeoutMs = parts.limits.waitMs } = parseJson(body);
      if (typeof timeoutMs !== "number" || !(timeoutMs >= 0))
        return reply(400, refusal('the body must be {"timeout_ms": N}', "BAD_REQUEST"));
      return dispatcher.drain(id, timeoutMs).then(
        () => ({ status: 200, body: workerJson(parts, worker) }),
        (cause: unknown) => ({ status: 504, body: refusal(cause instanceof Error ? cause.message : String(cause), "DRAIN_TIMEOUT") }),
      );
    }
    default:
      return reply(405, refusal(`/workers/{id}${verb === undefined ? "" : `/${verb}`} does not take ${method}`, "METHOD_NOT_ALLOWED"));
  }
}

function postWorker(parts: RouterParts, body: Buffer, search: string): Promise<OwnReply> {
  const fields = parseJson(body);
  const role = roleOf(fields);
  if (typeof role === "string") return reply(400, refusal(role, "BAD_REQUEST"));
  const url = typeof fields["url"] === "string" ? fields["url"] : null;
  return addWorker(parts, { url, search, fenced: fields["fenced"] === true, role });
}

/** The role that a registration asks for, or what is wrong with it. */
function roleOf({ worker_type: type = null, bootstrap_port: port }: Json): EngineRole | string | null {
  switch (type) {
    case null:
      return null;
    case "regular":
    case "decode":
      return { kind: type };
    case "prefill":
      return typeof port === "number" && Number.isInteger(port) && port > 0 && port < 65_536
        ? { kind: type, bootstrapPort: port }
        : `a prefill engine needs its bootstrap_port (1 to 65535), not ${JSON.stringify(port ?? null)}`;
    default:
      return `worker_type ${JSON.stringify(type)} is not one of regular, prefill, decode`;
  }
}

/** Takes an engine in; it gets requests once a probe succeeded, or with `fenced: true` once it was opened. With `?wait=1` the answer comes after that first probe. */
async function addWorker(
  { dispatcher, random, limits, log }: RouterParts,
  asked: { readonly url: string | null; readonly search: string; readonly fenced?: boolean; readonly role?: EngineRole | null },
): Promise<OwnReply> {
  const { url: text, search, fenced = false, role = null } = asked;
  const url = text === null ? null : normalUrl(text);
  if (url === null)
    return {
      status: 422,
      body: refusal(`url must be given, as http://host:port${text === null ? "" : `, not ${text.slice(0, 200)}`}`, "UNPROCESSABLE_ENTITY"),
    };
  if (dispatcher.fleet.byUrl(url) === undefined && dispatcher.fleet.workers.length >= limits.workersMax)
    return {
      status: 429,
      body: refusal(`the router has workersMax (${limits.workersMax}) workers already; remove some`, "TOO_MANY_WORKERS"),
    };
  const worker = dispatcher.fleet.add(uuid(random.bytes(16)), url, { fenced, role });
  if (fenced) dispatcher.watch.suspend(worker.id, "fenced");
  log.info("router.worker_added", { worker: url, id: worker.id, role: worker.role.kind });
  const probed = dispatcher.probe(worker.id);
  if (new URLSearchParams(search).get("wait") === "1") await probed;
  const location = `/workers/${worker.id}`;
  return {
    status: 202,
    headers: { location },
    body: {
      status: "accepted",
      worker_id: worker.id,
      url,
      location,
      message: "Worker addition queued for background processing",
      state: workerView(worker).state,
      ...(worker.health.kind === "unhealthy" ? { reason: worker.health.reason } : {}),
    },
  };
}

function removeWorker({ dispatcher }: RouterParts, id: string | null): Promise<OwnReply> {
  const worker = id === null ? undefined : dispatcher.fleet.get(id);
  if (id === null || worker === undefined) return reply(404, refusal("Worker ID not found", "WORKER_NOT_FOUND"));
  dispatcher.remove(id);
  return reply(202, { status: "accepted", worker_id: id, message: "Worker removal queued for background processing" });
}

function workerList(parts: RouterParts): Json {
  const { fleet } = parts.dispatcher;
  return {
    workers: fleet.workers.map((worker) => workerJson(parts, worker)),
    total: fleet.workers.length,
    stats: { prefill_count: fleet.count("prefill"), decode_count: fleet.count("decode"), regular_count: fleet.count("regular") },
  };
}

/** sglang_router's shape, with true `load`; `state`, `weight_version`, `paused` and `reason` are ours. */
function workerJson({ dispatcher }: RouterParts, worker: Worker): Json {
  const view = workerView(worker);
  return {
    id: worker.id,
    url: worker.url,
    model_id: "unknown",
    priority: 50,
    cost: 1,
    worker_type: worker.role.kind,
    ...(worker.role.kind === "prefill" ? { bootstrap_port: worker.role.bootstrapPort } : {}),
    connection_mode: "HTTP",
    is_healthy: worker.health.kind === "healthy",
    load: worker.inFlight,
    metadata: {},
    disable_health_check: false,
    state: view.state,
    weight_version: view.weightVersion,
    paused: dispatcher.watch.isPaused(worker.id),
    reason:
      worker.health.kind === "unhealthy"
        ? worker.health.reason
        : worker.gate.kind === "stale"
          ? `weights ${worker.gate.found ?? "unknown"} are not the fleet's`
          : null,
  };
}

function parseJson(body: Buffer): Json {
  if (body.length === 0) return {};
  try {
    const value: unknown = JSON.parse(body.toString("utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  } catch (cause) {
    throw new SlimeError(
      "codec.refused",
      `the body is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`,
      { where: "request body", reason: "not JSON" },
      { cause },
    );
  }
  throw new SlimeError("codec.refused", "the body must be a JSON object", { where: "request body", reason: "not an object" });
}

function queryUrl(search: string): string | null {
  return new URLSearchParams(search).get("url");
}

function bodyUrl(body: Buffer): string | null {
  const { url } = parseJson(body);
  return typeof url === "string" ? url : null;
}

/** Origin of an http url, or null. */
function normalUrl(text: string): string | null {
  return URL.canParse(text) && new URL(text).protocol === "http:" ? new URL(text).origin : null;
}

function uuid(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString("hex");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
