import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

/** Answers a request as a test wants; may keep it for ever. */
export type Script = (request: SeenRequest, response: ServerResponse) => void;

/** An HTTP server in an engine's place. `/health` and `/model_info` are answered by `health` and `version`; everything else by the script. */
export interface ScriptedEngine extends AsyncDisposable {
  readonly url: string;
  /** Requests other than probes, in order of arrival. */
  readonly seen: readonly SeenRequest[];
  /** Resolves once `count` requests were seen. */
  readonly saw: (count: number) => Promise<void>;
  script: Script;
  /** Status of `/health`; null: it never answers. */
  health: number | null;
  version: string;
  /** Breaks all connections and listens no more, as a killed process. */
  readonly kill: () => Promise<void>;
  /** Listens again on the same port. */
  readonly revive: () => Promise<void>;
}

/** Answers 200 with a JSON object. */
export function answerJson(response: ServerResponse, body: unknown, status = 200): void {
  const text = JSON.stringify(body);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

export async function scriptedEngine(script: Script = (_request, response) => answerJson(response, { ok: true })): Promise<ScriptedEngine> {
  const seen: SeenRequest[] = [];
  const watchers: { readonly count: number; readonly done: () => void }[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const path = request.url ?? "";
      if (path === "/health") {
        if (engine.health !== null) response.writeHead(engine.health).end("OK");
        return;
      }
      if (path === "/model_info") return answerJson(response, { weight_version: engine.version });
      const it = { method: request.method ?? "", path, headers: request.headers, body: Buffer.concat(chunks) };
      seen.push(it);
      for (const watcher of watchers.filter(({ count }) => count <= seen.length)) watcher.done();
      engine.script(it, response);
    });
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  const listen = (port: number) => new Promise<void>((resolve) => server.listen(port, "127.0.0.1", () => resolve()));
  await listen(0);
  const { port } = server.address() as AddressInfo;
  const kill = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.resetAndDestroy();
    });
  const engine: ScriptedEngine = {
    url: `http://127.0.0.1:${port}`,
    seen,
    saw: (count) => new Promise((done) => (seen.length >= count ? done() : void watchers.push({ count, done }))),
    script,
    health: 200,
    version: "0",
    kill,
    revive: () => listen(port),
    [Symbol.asyncDispose]: () => (server.listening ? kill() : Promise.resolve()),
  };
  return engine;
}
