import type { Router, RouterStats } from "@slime/backend";
import { type Clock, SlimeError, systemClock } from "@slime/core";
import { HttpClient, type HttpReply, refusalText, replyJson } from "./http-client.js";

/** Drives a router of ours over HTTP, engines named by their urls. @throws `engine.unavailable` when the router does not answer, `not_found` for an engine it does not know. */
export function httpRouter(url: string, options: { readonly clock?: Clock; readonly controlTimeoutMs?: number } = {}): Router {
  const http = new HttpClient(url, options.clock ?? systemClock);
  const timeoutMs = options.controlTimeoutMs ?? 30_000;
  const call = async (method: "GET" | "POST" | "DELETE", path: string, json?: unknown, limitMs = timeoutMs) =>
    accept(url, path, await http.call({ method, path, timeoutMs: limitMs, ...(json === undefined ? {} : { json }) }));
  const idOf = async (engine: string): Promise<string> => {
    const { workers } = replyJson(url, await call("GET", "/workers")) as {
      readonly workers?: readonly { readonly id: string; readonly url: string }[];
    };
    const origin = new URL(engine).origin;
    const found = workers?.find((worker) => worker.url === origin);
    if (found !== undefined) return found.id;
    throw new SlimeError("not_found", `the router at ${url} knows no engine ${engine}; add it first`, { kind: "engine", id: engine });
  };
  return {
    url,
    async add(engine, { fenced = false, role } = {}) {
      const named = role === undefined ? {} : { worker_type: role.kind };
      const port = role?.kind === "prefill" ? { bootstrap_port: role.bootstrapPort } : {};
      const { state, reason } = replyJson(url, await call("POST", "/workers?wait=1", { url: engine, fenced, ...named, ...port })) as {
        readonly state?: unknown;
        readonly reason?: unknown;
      };
      if (state === "unhealthy")
        throw new SlimeError("engine.unavailable", `${engine} was registered but does not answer: ${String(reason)}`, {
          engine,
          reason: String(reason),
        });
    },
    async remove(engine) {
      await call("DELETE", `/workers/${await idOf(engine)}`);
    },
    async fence(engine) {
      await call("POST", `/workers/${await idOf(engine)}/fence`);
    },
    async open(engine, version) {
      await call("POST", `/workers/${await idOf(engine)}/open`, { version });
    },
    async drain(engine, drainMs) {
      await call("POST", `/workers/${await idOf(engine)}/drain`, { timeout_ms: drainMs }, drainMs + timeoutMs);
    },
    stats: async () => replyJson(url, await call("GET", "/stats")) as unknown as RouterStats,
    close: () => http.close(),
  };
}

function accept(url: string, path: string, reply: HttpReply): HttpReply {
  if (reply.status >= 200 && reply.status < 300) return reply;
  const reason = refusalText(reply.body);
  if (reply.status === 404) throw new SlimeError("not_found", `${url}${path}: ${reason}`, { kind: "engine", id: path });
  if (reply.status === 504) throw new SlimeError("call.deadline", `${url}${path}: ${reason}`, { what: path, timeoutMs: 0 });
  if (reply.status >= 500)
    throw new SlimeError("engine.unavailable", `${url}${path} answered ${reply.status}: ${reason}`, { engine: url, reason });
  throw new SlimeError("engine.refused", `${url}${path} answered ${reply.status}: ${reason}`, {
    engine: url,
    status: reply.status,
    reason,
  });
}
