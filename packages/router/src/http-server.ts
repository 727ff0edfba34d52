import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, isIP } from "node:net";
import { type Clock, factsOf, type Logger, SlimeError } from "@slime/core";
import { ownRoute } from "./own-routes.js";
import type { RouterParts } from "./parts.js";
import { proxy } from "./proxy.js";
import { endToEndHeaders } from "./undici-transport.js";

export interface HttpFront {
  readonly url: string;
  readonly close: () => Promise<void>;
}

/** The router's HTTP front: worker management of its own, some routes sent to every engine, everything else proxied to one. @throws `address.refused`, `port.taken`. */
export async function serveRouter(parts: RouterParts, options: { readonly host: string; readonly port: number }): Promise<HttpFront> {
  const { host, port } = options;
  if (!(host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127.")))) {
    throw new SlimeError(
      "address.refused",
      `${host} is not a loopback address; the router has no TLS and no tokens, so it listens on 127.0.0.1 only`,
      { address: host },
    );
  }
  const server = createServer((request, response) => {
    handle(parts, request, response).catch((error: unknown) => answerError(parts.log, request, response, error));
  });
  server.keepAliveTimeout = 65_000;
  await listen(server, host, port);
  const url = `http://${host.includes(":") ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`;
  parts.log.info("router.listening", { url });
  return { url, close: () => closeServer(server, parts.clock, parts.limits.closeMs) };
}

async function handle(parts: RouterParts, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await readBody(request, parts.limits.bodyBytesMax);
  const path = request.url ?? "/";
  const id =
    request.headers["x-request-id"]?.toString() ??
    `${path.startsWith("/generate") ? "gnt" : "req"}-${Buffer.from(parts.random.bytes(12)).toString("hex")}`;
  const forward = {
    id,
    method: request.method ?? "GET",
    path,
    headers: [...endToEndHeaders(request.rawHeaders, ["host", "content-length", "x-request-id"]), "x-request-id", id],
    body: body.length === 0 ? null : body,
  };
  const own = ownRoute(parts, forward);
  if (own === null) return proxy(parts.dispatcher, forward, response);
  const { status, headers, body: reply } = await own;
  const text = typeof reply === "string" ? reply : JSON.stringify(reply);
  response.writeHead(status, {
    "content-type": typeof reply === "string" ? "text/plain; charset=utf-8" : "application/json",
    ...headers,
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}

async function readBody(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const tooLarge = (bytes: number) =>
    new SlimeError("wire.limit", `the body is larger than bodyBytesMax (${bytesMax} bytes); send fewer prompts at once`, {
      what: "request body",
      value: bytes,
      max: bytesMax,
    });
  const announced = Number(request.headers["content-length"] ?? 0);
  if (announced > bytesMax) throw tooLarge(announced);
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bytesMax) throw tooLarge(length);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function answerError(log: Logger, request: IncomingMessage, response: ServerResponse, error: unknown): void {
  if (response.destroyed) return;
  const message = error instanceof Error ? error.message : String(error);
  if (!SlimeError.isAny(error))
    log.error("router.route_failed", {
      path: request.url?.slice(0, 200),
      message,
      stack: error instanceof Error ? error.stack : undefined,
    });
  if (response.headersSent) return void response.destroy();
  // What is left of the request is not read, so the connection cannot be used again.
  if (!request.complete) response.setHeader("connection", "close");
  const status = SlimeError.is(error, "wire.limit") && error.details.what !== "request body" ? 503 : factsOf(error).httpStatus;
  const text = JSON.stringify({
    error: { message, code: status, type: status === 503 ? "no_available_workers" : SlimeError.isAny(error) ? error.code : "internal" },
  });
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    ...(status === 503 ? { "retry-after": "1" } : {}),
  });
  response.end(text);
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

function closeServer(server: Server, clock: Clock, closeMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = clock.after(closeMs, () => server.closeAllConnections());
    server.close(() => {
      timer.cancel();
      resolve();
    });
    server.closeIdleConnections();
  });
}
