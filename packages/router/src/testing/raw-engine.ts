import { type AddressInfo, createServer, type Socket } from "node:net";

/** An engine that answers with whatever bytes a test gives, well-formed or not. */
export interface RawEngine extends AsyncDisposable {
  readonly url: string;
  /** Bytes of every request other than probes, in order. */
  readonly seen: readonly string[];
  /** What follows each request. */
  answer: (socket: Socket, request: string) => void;
}

const healthy = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/** Requests are told apart by their `content-length`, which the router always gives. */
export async function rawEngine(answer: RawEngine["answer"]): Promise<RawEngine> {
  const seen: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    let pending = "";
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (chunk) => {
      pending += chunk.toString("latin1");
      for (;;) {
        const head = pending.indexOf("\r\n\r\n");
        if (head < 0) return;
        const length = head + 4 + Number(/\r\ncontent-length: (\d+)/i.exec(pending.slice(0, head))?.[1] ?? 0);
        if (pending.length < length) return;
        const request = pending.slice(0, length);
        pending = pending.slice(length);
        if (request.startsWith("GET /health ")) socket.write(healthy);
        else {
          seen.push(request);
          engine.answer(socket, request);
        }
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const engine: RawEngine = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    answer,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
  return engine;
}
