import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, isIP } from "node:net";
import { errorFacts, factsOf, SlimeError } from "@slime/core";
import {
  abortRequest,
  continueGeneration,
  flushCache,
  pauseGeneration,
  updateWeightsFromDisk,
  updateWeightsFromTensor,
  updateWeightVersion,
} from "./control-routes.js";
import type { EmbeddedEngine } from "./engine.js";
import { parseGenerate, type RequestRules } from "./generate-request.js";
import { answerGenerate, generate, sendJson, sendText } from "./generate-route.js";
import { loads, metrics, modelInfo, serverInfo } from "./info-routes.js";
import { type EngineContext, refusal } from "./options.js";
import { childSeed } from "./sampling.js";

interface Call {
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  /** The parsed body; undefined when it is empty. */
  readonly body: unknown;
}
type Handler = (call: Call) => void | Promise<void>;
type Route = Readonly<Partial<Record<"GET" | "POST", Handler>>>;
type Routes = ReadonlyMap<string, Route>;

export interface EngineServer {
  readonly url: string;
  readonly close: () => Promise<void>;
}

/** SGLang's HTTP routes over an engine. @throws `address.refused` beyond loopback, `port.taken`. */
export async function serveEngine(
  engine: EmbeddedEngine,
  context: EngineContext,
  options: { readonly host: string; readonly port: number; readonly seed: number },
): Promise<EngineServer> {
  const { host, port } = options;
  if (!(host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127.")))) {
    throw new SlimeError(
      "address.refused",
      `${host} is not a loopback address; the engine has no TLS and no tokens, so it listens on 127.0.0.1 only`,
      { address: host },
    );
  }
  const routes = engineRoutes(engine, context, options.seed);
  const server = createServer((request, response) => {
    handle(routes, engine, request, response).catch((error: unknown) => answerError(context, request, response, error));
  });
  // Longer than a pooled client keeps a connection, so that the server never closes one just as it is used again.
  server.keepAliveTimeout = 65_000;
  await listen(server, host, port);
  const bound = (server.address() as AddressInfo).port;
  const url = `http://${host.includes(":") ? `[${host}]` : host}:${bound}`;
  context.log.info("engine.listening", { url, model: engine.modelPath, weightVersion: engine.weightVersion });
  return { url, close: () => closeServer(server, context, engine.limits.closeMs) };
}

function engineRoutes(engine: EmbeddedEngine, context: EngineContext, seed: number): Routes {
  let requests = 0;
  const rules: RequestRules = {
    config: engine.config,
    tokenizer: engine.tokenizer,
    limits: engine.limits,
    random: context.random,
    nextSeed: () => childSeed(seed, ++requests),
  };
  const get = (handler: Handler) => ({ GET: handler });
  const post = (handler: Handler) => ({ POST: handler });
  const json = (make: () => unknown) => get(({ response }) => sendJson(response, 200, make()));
  const flush: Handler = ({ query, response }) => flushCache(engine, query, response);
  return new Map<string, Route>([
    ["/generate", post(({ body, response }) => answerGenerate(engine, context.clock, parseGenerate(body, rules), response))],
    ["/health", get(({ response }) => answerHealth(engine, response))],
    ["/health_generate", get(({ response }) => answerHealthGenerate(engine, context, rules, response))],
    ["/ping", get(({ response }) => answerHealth(engine, response))],
    ["/model_info", json(() => modelInfo(engine))],
    ["/get_model_info", json(() => modelInfo(engine))],
    ["/server_info", json(() => serverInfo(engine))],
    ["/get_server_info", json(() => serverInfo(engine))],
    ["/v1/loads", json(() => loads(engine, context.clock))],
    [
      "/v1/models",
      json(() => ({ object: "list", data: [{ id: engine.modelPath, object: "model", max_model_len: engine.config.positionsMax }] })),
    ],
    ["/metrics", get(({ response }) => sendText(response, 200, metrics(engine)))],
    ["/flush_cache", { GET: flush, POST: flush }],
    ["/pause_generation", post(({ body, response }) => pauseGeneration(engine, body, response))],
    ["/continue_generation", post(({ response }) => continueGeneration(engine, response))],
    ["/abort_request", post(({ body, response }) => abortRequest(engine, body, response))],
    ["/update_weights_from_disk", post(({ body, response }) => updateWeightsFromDisk(engine, body, response))],
    ["/update_weights_from_tensor", post(({ body, response }) => updateWeightsFromTensor(engine, body, response))],
    ["/update_weight_version", post(({ body, response }) => updateWeightVersion(engine, body, response))],
    [
      "/weights_checker",
      post(({ response }) =>
        sendJson(response, 200, { success: true, message: "Checksum of all parameters.", per_engine_checksum: engine.checksum() }),
      ),
    ],
  ]);
}

/** Alive: the loop has not stopped. It says nothing about weights or a pause; /health_generate does. */
function answerHealth(engine: EmbeddedEngine, response: ServerResponse): void {
  if (engine.stopped !== null) throw refusal(503, `The engine has stopped: ${engine.stopped}.`);
  sendText(response, 200, "OK\n");
}

/** Generates a token; 503 when none comes within `healthMs`, as while paused. */
async function answerHealthGenerate(
  engine: EmbeddedEngine,
  context: EngineContext,
  rules: RequestRules,
  response: ServerResponse,
): Promise<void> {
  const call = parseGenerate({ input_ids: [0], sampling_params: { max_new_tokens: 1, temperature: 0 } }, rules);
  const rid = call.jobs[0]?.rid ?? "";
  const timer = context.clock.after(engine.limits.healthMs, () => engine.abort({ rid }));
  const [sequence] = await generate(engine, call, response).finally(() => timer.cancel());
  if (sequence?.state.kind === "finished" && sequence.state.reason.type !== "abort") return sendText(response, 200, "OK\n");
  throw refusal(503, `No token within ${engine.limits.healthMs} ms${engine.scheduler.paused ? ": generation is paused" : ""}.`);
}

async function handle(routes: Routes, engine: EmbeddedEngine, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const [path = "", search = ""] = (request.url ?? "").split("?", 2);
  const route = routes.get(path);
  if (route === undefined) throw refusal(404, `No route ${path.slice(0, 200)}; the embedded engine has ${[...routes.keys()].join(", ")}.`);
  const handler = request.method === "GET" || request.method === "POST" ? route[request.method] : undefined;
  if (handler === undefined) throw refusal(405, `${path} takes ${Object.keys(route).join(" or ")}, not ${request.method}.`);
  const bytes = await readBody(request, engine.limits.bodyBytesMax);
  let body: unknown;
  if (bytes.length > 0 && request.method === "POST") {
    try {
      body = JSON.parse(bytes.toString("utf8"));
    } catch (cause) {
      throw refusal(400, `The body is not JSON: ${cause instanceof Error ? cause.message : String(cause)}.`, { cause });
    }
  }
  await handler({ response, query: new URLSearchParams(search), body });
}

async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const tooLarge = () => refusal(413, `The body is larger than bodyBytesMax (${bytesMax} bytes); send fewer prompts at once.`);
  if (Number(request.headers["content-length"] ?? 0) > bytesMax) throw tooLarge();
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bytesMax) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function answerError(context: EngineContext, request: IncomingMessage, response: ServerResponse, error: unknown): void {
  if (response.destroyed) return;
  const status = SlimeError.is(error, "engine.refused")
    ? error.details.status
    : SlimeError.isAny(error)
      ? factsOf(error).httpStatus
      : errorFacts["call.failed"].httpStatus;
  const message = SlimeError.is(error, "engine.refused") ? error.details.reason : error instanceof Error ? error.message : String(error);
  if (status >= 500 && !SlimeError.isAny(error))
    context.log.error("engine.route_failed", {
      path: request.url?.slice(0, 200),
      message,
      stack: error instanceof Error ? error.stack : undefined,
    });
  if (response.headersSent) return void response.destroy();
  // What is left of the request is not read, so the connection cannot be used again.
  if (!request.complete) response.setHeader("connection", "close");
  sendJson(response, status, { error: { message, code: status, type: SlimeError.isAny(error) ? error.code : "internal" } });
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      reject(
        cause.code === "EADDRINUSE"
          ? new SlimeError("port.taken", `port ${port} of ${host} is in use; choose another or 0`, { port, pid: null }, { cause })
          : cause,
      );
    });
    server.listen(port, host, () => resolve());
  });
}

/** Lets replies under way go out, then cuts what is left. */
function closeServer(server: Server, context: EngineContext, closeMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = context.clock.after(closeMs, () => server.closeAllConnections());
    server.close(() => {
      timer.cancel();
      resolve();
    });
    server.closeIdleConnections();
  });
}
