import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { type Clock, systemClock } from "@slime/core";
import { isOlder } from "../capabilities.js";
import type { MemoryTag } from "../engine-state.js";
import { type DoubleRoute, doubleRoutes } from "./double-routes.js";
import { DoubleScheduler } from "./double-scheduler.js";
import type { DoubleServer, SglangDoubleOptions } from "./double-server.js";
import { DoubleWeights } from "./double-weights.js";

/**
 * A stock SGLang server in this process, for tests without Python: its routes and shapes, what its pauses do to requests, and its deaths. What
 * kills a real one cuts every connection here and refuses all that come after. Its numbers are a table that the weights decide, so that
 * pushes can be seen; payloads of tensors are JSON (`DoublePayload`), never pickles.
 */
export class SglangDouble implements DoubleServer, AsyncDisposable {
  readonly url: string;
  readonly version: string;
  readonly options: SglangDoubleOptions;
  readonly clock: Clock;
  readonly contextLength: number;
  readonly weights: DoubleWeights;
  readonly scheduler: DoubleScheduler;
  readonly groups = new Set<string>();
  readonly released = new Set<MemoryTag>();
  /** Routes that were called, in order: "POST /generate". */
  readonly calls: string[] = [];
  modelPath: string;
  weightVersion = "default";
  sessionOpen = false;
  /** Why it is dead; null: it lives. */
  diedOf: string | null = null;
  readonly #server: Server;
  readonly #sockets: ReadonlySet<Socket>;

  private constructor(options: SglangDoubleOptions, weights: DoubleWeights, server: Server, sockets: ReadonlySet<Socket>) {
    this.options = options;
    this.clock = options.clock ?? systemClock;
    this.version = options.version ?? "0.5.15";
    this.contextLength = options.contextLength ?? 512;
    this.modelPath = options.modelPath;
    this.weights = weights;
    this.#server = server;
    this.#sockets = sockets;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.scheduler = new DoubleScheduler({
      clock: this.clock,
      stepMs: options.stepMs ?? 1,
      seed: () => this.weights.seed,
      released: () => this.released.size > 0,
      die: (reason) => this.die(reason),
    });
  }

  static async start(options: SglangDoubleOptions): Promise<SglangDouble> {
    const weights = await DoubleWeights.load(options.modelPath);
    const sockets = new Set<Socket>();
    const server = createServer();
    // As uvicorn: a pooled client that keeps a connection longer meets a reset.
    server.keepAliveTimeout = 5_000;
    server.on("connection", (socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const double = new SglangDouble(options, weights, server, sockets);
    const routes = doubleRoutes(double);
    server.on("request", (request: IncomingMessage, response: ServerResponse) => void double.#answer(routes, request, response));
    return double;
  }

  get newer(): boolean {
    return !isOlder(this.version, "0.5.23");
  }

  die(reason: string): void {
    if (this.diedOf !== null) return;
    this.diedOf = reason;
    this.scheduler.stop();
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** As SIGSTOP of the scheduler: what needs it waits, /model_info and /v1/loads go on answering. */
  freeze(): void {
    this.scheduler.frozen = true;
  }

  thaw(): void {
    this.scheduler.frozen = false;
    this.scheduler.wake();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.die("closed");
  }

  async #answer(routes: ReadonlyMap<string, DoubleRoute>, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? "/", this.url);
    const method = request.method ?? "GET";
    this.calls.push(`${method} ${pathname}`);
    const text = await bodyOf(request).catch(() => null);
    if (text === null) return;
    const route = routes.get(pathname);
    if (route === undefined) return void response.writeHead(404, { "content-type": "application/json" }).end('{"detail":"Not Found"}');
    if (!route.methods.includes(method))
      return void response
        .writeHead(405, { "content-type": "application/json", allow: route.methods.join(", ") })
        .end('{"detail":"Method Not Allowed"}');
    await route.answer({ query: searchParams, text, response }).catch((error: unknown) => this.die(String(error)));
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
