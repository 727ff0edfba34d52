import { type AddressInfo, createServer, isIP, type Server } from "node:net";
import { factsOf, SlimeError } from "@slime/core";
import { ClientConnection, type InboundOwner, type InboundRequest, type Patience } from "./client-connection.js";
import { connectionsMax } from "./connection-limit.js";
import type { RequestHead } from "./head-parser.js";
import { ownRoute } from "./own-routes.js";
import type { RouterParts } from "./parts.js";
import type { ReplyWriter } from "./reply-writer.js";
import type { ForwardRequest, Presence } from "./transport.js";

export interface RouterFront {
  readonly url: string;
  readonly close: () => Promise<void>;
}

const patience: Patience = { idleS: 65, requestS: 60, stalledS: 300, lingerS: 3 };

/** The router's HTTP front on bare sockets: worker management of its own, some routes sent to every engine, everything else proxied to one. @throws `address.refused`, `port.taken`. */
export async function serveRouter(
  parts: RouterParts,
  options: { readonly host: string; readonly port: number; readonly clientsMax?: number },
): Promise<RouterFront> {
  const { host, port } = options;
  const { clock, limits, log } = parts;
  if (!(host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127.")))) {
    throw new SlimeError(
      "address.refused",
      `${host} is not a loopback address; the router has no TLS and no tokens, so it listens on 127.0.0.1 only`,
      { address: host },
    );
  }
  const connections = new Set<ClientConnection>();
  const clientsMax = options.clientsMax ?? connectionsMax();
  let held = 0;
  const owner: InboundOwner = {
    bodyBytesMax: limits.bodyBytesMax,
    nameRequest: requestNames(parts),
    holdBytes(bytes) {
      if (bytes > 0 && held + bytes > limits.heldBytesMax) return false;
      held += bytes;
      return true;
    },
    onRequest: (request) => serve(parts, request),
    onClosed: (connection) => connections.delete(connection),
  };
  let warned = false;
  const server = createServer((socket) => {
    const connection = new ClientConnection(socket, owner);
    connections.add(connection);
    if (clientsMax === null || connections.size <= clientsMax) return;
    if (!warned) log.warn("router.connections_full", { connections: clientsMax, fix: "raise the limit of open files (ulimit -n)" });
    warned = true;
    connection.refuse(503, "no_available_workers", `the router serves ${clientsMax} connections at once: half its open files, less 100`);
  });
  await listen(server, host, port);
  // A connection that could not be taken: the others go on.
  server.on("error", (error) => log.warn("router.accept_failed", { reason: error.message }));
  let sweeping = clock.after(1_000, function sweep() {
    for (const connection of connections) connection.sweep(patience);
    sweeping = clock.after(1_000, sweep);
  });
  const url = `http://${host.includes(":") ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`;
  log.info("router.listening", { url, clientsMax });
  const close = () =>
    new Promise<void>((resolve) => {
      sweeping.cancel();
      const timer = clock.after(limits.closeMs, () => {
        for (const connection of connections) connection.destroy();
      });
      server.close(() => {
        timer.cancel();
        resolve();
      });
      for (const connection of connections) connection.closeWhenIdle();
    });
  return { url, close };
}

/** Names of requests: unlike in this process, and unlike those of another life of it. */
function requestNames(parts: RouterParts): (head: RequestHead) => string {
  const life = Buffer.from(parts.random.bytes(6)).toString("hex");
  let count = 0;
  return ({ target }) => `${/^\/generate(?:\?|$)/.test(target) ? "gnt" : "req"}-${life}${(++count).toString(16).padStart(12, "0")}`;
}

/** Answers one request in the end, whatever happens. */
function serve(parts: RouterParts, { head, body, reply, client }: InboundRequest): void {
  const { method, target, headers } = head;
  headers.push("x-request-id", reply.requestId);
  const forward: ForwardRequest = { id: reply.requestId, method, path: target, headers, body: body.length === 0 ? null : body };
  respond(parts, forward, reply, client).catch((error: unknown) => answerError(parts, forward, reply, error));
}

async function respond(parts: RouterParts, forward: ForwardRequest, reply: ReplyWriter, client: Presence): Promise<void> {
  const own = ownRoute(parts, forward);
  if (own === null) return parts.dispatcher.handle(forward, reply, reply.chosen, client);
  const { status, headers, body } = await own;
  const isText = typeof body === "string";
  const type = isText ? "text/plain; charset=utf-8" : "application/json";
  reply.own(status, { "content-type": type, ...headers }, isText ? body : JSON.stringify(body));
}

function answerError({ log }: RouterParts, { path }: ForwardRequest, reply: ReplyWriter, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  if (!SlimeError.isAny(error)) {
    const stack = error instanceof Error ? error.stack : undefined;
    log.error("router.route_failed", { path: path.slice(0, 200), message, stack });
  }
  if (reply.begun) return reply.cut("the router failed");
  const status = SlimeError.is(error, "wire.limit") ? 503 : factsOf(error).httpStatus;
  const type = status === 503 ? "no_available_workers" : SlimeError.isAny(error) ? error.code : "internal";
  const headers = { "content-type": "application/json", ...(status === 503 ? { "retry-after": "1" } : {}) };
  reply.own(status, headers, JSON.stringify({ error: { message, code: status, type } }));
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
    // As many clients as may come at once, coming at once.
    server.listen({ port, host, backlog: 4_096 }, () => {
      server.removeAllListeners("error");
      resolve();
    });
  });
}
