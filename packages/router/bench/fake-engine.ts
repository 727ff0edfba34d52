/**
 * An engine that costs next to nothing: a process with bare sockets that answers every POST from bytes rendered before. What it answers,
 * and when, the parent says: `{kind: "json", bytes, delayMs}`, `{kind: "stream", chunks, overMs}`, `{kind: "held"}` (nothing until the next
 * message). Sends its port, and the number of requests it holds when asked with `{kind: "count"}`.
 */
import { createServer, type Socket } from "node:net";
import type { EngineOrder } from "./messages.js";

const chunkBytes = 120;
let order: Exclude<EngineOrder, { kind: "count" }> = { kind: "json", bytes: 1_024, delayMs: 0 };
let json = rendered(1_024);
const streamHead = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
const event = `data: ${JSON.stringify({ text: "x".repeat(chunkBytes), meta_info: { id: "bench" } })}\n\n`;
const chunk = Buffer.from(`${event.length.toString(16)}\r\n${event}\r\n`);
const held = new Set<Socket>();

process.on("message", (message: EngineOrder) => {
  if (message.kind === "count") return void process.send?.({ held: held.size });
  order = message;
  if (message.kind === "json") json = rendered(message.bytes);
  if (message.kind !== "held") for (const socket of [...held]) answer(socket);
});
process.on("disconnect", () => process.exit(0));

function rendered(bytes: number): Buffer {
  const body = JSON.stringify({ text: "x".repeat(Math.max(0, bytes - 11)) });
  return Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
}

function answer(socket: Socket): void {
  held.delete(socket);
  if (order.kind === "held") return void held.add(socket);
  if (order.kind === "json") {
    if (order.delayMs === 0) socket.write(json);
    else setTimeout(() => socket.write(json), order.delayMs);
    return;
  }
  socket.write(streamHead);
  const { chunks, overMs } = order;
  if (overMs === 0) {
    for (let i = 0; i < chunks; i++) socket.write(chunk);
    return void socket.write("0\r\n\r\n");
  }
  let sent = 0;
  const timer = setInterval(() => {
    if (sent++ < chunks && !socket.destroyed) return void socket.write(chunk);
    clearInterval(timer);
    if (!socket.destroyed) socket.write("0\r\n\r\n");
  }, overMs / chunks);
}

const small = (status: string, body: string) =>
  `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;

const server = createServer({ noDelay: true }, (socket) => {
  let pending: Buffer | null = null;
  let left = 0;
  socket.on("error", () => {});
  socket.on("close", () => held.delete(socket));
  socket.on("data", (read: Buffer) => {
    let bytes = pending === null ? read : Buffer.concat([pending, read]);
    pending = null;
    if (left > 0) {
      left -= bytes.length;
      if (left === 0) answer(socket);
      return;
    }
    const end = bytes.indexOf("\r\n\r\n");
    if (end < 0) {
      pending = bytes;
      return;
    }
    const head = bytes.toString("latin1", 0, end);
    bytes = bytes.subarray(end + 4);
    if (head.startsWith("GET /health")) return void socket.write(small("200 OK", ""));
    if (/^GET \/(get_)?(server|model)_info/.test(head))
      return void socket.write(small("200 OK", '{"model_path":"bench","tp_size":1,"dp_size":1}'));
    if (head.startsWith("GET ")) return void socket.write(small("404 Not Found", "{}"));
    if (!head.startsWith("POST ")) return void socket.destroy();
    left = Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0) - bytes.length;
    if (left === 0) answer(socket);
  });
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 8_192 }, () => {
  const address = server.address();
  process.send?.({ port: typeof address === "object" ? address?.port : 0 });
});
