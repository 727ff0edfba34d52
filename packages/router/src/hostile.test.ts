import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { httpRouter } from "./router-client.js";
import { startRouter } from "./start.js";
import { type RawEngine, rawEngine } from "./testing/index.js";

const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing[Symbol.asyncDispose]();
});

const good = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\ngood";

/** A router before one engine that answers with the bytes of `answer`. */
async function routed(answer: RawEngine["answer"]): Promise<{ readonly url: string; readonly engine: RawEngine }> {
  const retry = { firstMs: 1, factor: 1, delayMsMax: 1, jitter: 0, triesMax: 3 };
  const router = await startRouter({ limits: { probeEveryMs: 600_000, waitMs: 300, closeMs: 20, retry } });
  const engine = await rawEngine(answer);
  open.push(router, engine);
  const client = httpRouter(router.url);
  await client.add(engine.url);
  await client.close();
  return { url: router.url, engine };
}

/** Sends bytes on a connection of its own and gathers what comes until `done` says it is enough, or the other side closes. `reset`: by force. */
function raw(url: string, bytes: string | readonly string[], done: (text: string) => boolean = () => false) {
  return new Promise<{ readonly text: string; readonly reset: boolean; readonly closed: boolean }>((resolve) => {
    const socket = connect(Number(new URL(url).port), "127.0.0.1");
    let text = "";
    const end = (reset: boolean, closed: boolean) => {
      socket.destroy();
      resolve({ text, reset, closed });
    };
    socket.setNoDelay(true);
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      if (done(text)) end(false, false);
    });
    socket.on("end", () => end(false, true));
    socket.on("error", () => end(true, true));
    for (const piece of typeof bytes === "string" ? [bytes] : bytes) socket.write(piece, "latin1");
  });
}

const post = (body = "{}", extra = "") => `POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n${extra}\r\n${body}`;
const statuses = (text: string) => [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));
/** Until so many replies with a body of `good` have come. */
const goods = (count: number) => (text: string) => text.split("good").length > count;

describe("an engine's reply that is not HTTP is no answer", () => {
  it.each([
    ["a header line split by a bare CR", "HTTP/1.1 200 OK\r\nx-a: b\rset-cookie: evil=1\r\ncontent-length: 2\r\n\r\nok"],
    ["a header line split by a bare LF", "HTTP/1.1 200 OK\r\nx-a: b\nset-cookie: evil=1\r\ncontent-length: 2\r\n\r\nok"],
    ["lines that end in LF", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok"],
    ["a folded header", "HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nok"],
    ["a NUL in a header", "HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 2\r\n\r\nok"],
    ["a blank before the colon", "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok"],
    ["two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\nokok"],
    ["a list of lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok"],
    ["a signed length", "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok"],
    ["a length and chunks", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
    ["an unknown coding", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
    ["no status line", "hello\r\n\r\n"],
    ["a status of two digits", "HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok"],
    ["a status past 599", "HTTP/1.1 999 OK\r\ncontent-length: 2\r\n\r\nok"],
    ["HTTP/2", "HTTP/2 200 OK\r\ncontent-length: 2\r\n\r\nok"],
    ["another protocol", "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"],
    ["a head without end", `HTTP/1.1 200 OK\r\n${"x-a: b\r\n".repeat(4_000)}`],
    ["interim answers and then nothing", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"],
    ["nothing", ""],
  ])("%s", async (_what, bytes) => {
    const { url, engine } = await routed((socket) => socket.end(bytes, "latin1"));
    const { text } = await raw(url, post("{}", "connection: close\r\n"));
    expect(statuses(text)).toEqual([503]);
    expect(text).not.toContain("evil");
    // Tried again, as with any break before the first byte.
    expect(engine.seen.length).toBeGreaterThan(1);
    engine.answer = (socket) => socket.write(good);
    await expect.poll(async () => (await raw(url, post(), goods(1))).text, { timeout: 5_000 }).toContain("good");
  });
});

describe("an engine's reply is passed on for what it is", () => {
  it.each([
    ["with interim answers before it", `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n${good}`, 200, "good"],
    ["in chunks of one byte", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\ng\r\n1\r\no\r\n2\r\nod\r\n0\r\n\r\n", 200, "good"],
    ["without a length, until it closes", "HTTP/1.1 200 OK\r\n\r\ngood", 200, "good"],
    ["of HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\ngood", 200, "good"],
    ["204 with a body that must not be", "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\ngood", 204, ""],
    ["304 with a length", "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n", 304, ""],
    ["500 with a body", "HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\ngood", 500, "good"],
    ["a reason phrase that is none", "HTTP/1.1 200 \r\ncontent-length: 4\r\n\r\ngood", 200, "good"],
  ])("%s", async (_what, bytes, status, body) => {
    const { url } = await routed((socket) => socket.end(bytes, "latin1"));
    const reply = await fetch(`${url}/generate`, { method: "POST", body: "{}" });
    expect(reply.status).toBe(status);
    expect(await reply.text()).toBe(body);
  });

  it("its fields for this hop are not, nor what it says of the router's own", async () => {
    const bytes =
      "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-secret\r\nkeep-alive: timeout=5\r\nx-secret: 1\r\nx-slime-engine: http://evil\r\n" +
      "x-slime-weight-version: 99\r\nx-request-id: evil\r\nproxy-authenticate: x\r\ncontent-length: 4\r\n\r\ngood";
    const { url, engine } = await routed((socket) => socket.write(bytes));
    const { text } = await raw(url, post("{}", "x-request-id: mine\r\n"), goods(1));
    expect(text).not.toMatch(/secret|evil|timeout=5|proxy-auth|weight-version/);
    expect(text).toContain(`x-slime-engine: ${engine.url}\r\n`);
    expect(text).toContain("x-request-id: mine\r\n");
  });
});

describe("an engine's reply that breaks never looks whole", () => {
  it.each([
    ["shorter than its length", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\ngood"],
    ["chunks without the last", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n"],
    ["a chunk longer than its size", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\ngood\r\n0\r\n\r\n"],
    ["a chunk of a size that is none", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n-1\r\n\r\n"],
    ["a size past all bounds", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\nfffffffff\r\n"],
    ["trailers", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\nx-evil: 1\r\n\r\n"],
  ])("%s", async (_what, bytes) => {
    const { url, engine } = await routed((socket) => socket.end(bytes, "latin1"));
    const { text, reset } = await raw(url, post());
    expect(reset).toBe(true);
    expect(text).not.toContain("\r\n0\r\n\r\n");
    expect(text).not.toContain("evil");
    // P2: not tried again.
    expect(engine.seen).toHaveLength(1);
  });

  it.each([
    ["within an event", 'data: {"a":1}\n\ndata: {"b'],
    ["between events", 'data: {"a":1}\n\n'],
  ])("a stream that breaks %s ends in one error event", async (_what, events) => {
    const chunk = `${events.length.toString(16)}\r\n${events}\r\n`;
    const head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    const { url } = await routed((socket) => socket.end(head + chunk));
    const text = await (await fetch(`${url}/generate`, { method: "POST", body: "{}" })).text();
    expect(text).toMatch(/^data: \{"a":1\}\n\ndata: \{"error":\{.*\}\}\n\n$/);
  });
});

describe("no reply reaches another request", () => {
  const evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";

  it.each([
    ["in the same packet", (socket: Parameters<RawEngine["answer"]>[0]) => socket.write(good + evil)],
    ["a moment later", (socket: Parameters<RawEngine["answer"]>[0]) => socket.write(good, () => setImmediate(() => socket.write(evil)))],
    ["beyond its length", (socket: Parameters<RawEngine["answer"]>[0]) => socket.write(`${good}evil`)],
    ["after a 204", (socket: Parameters<RawEngine["answer"]>[0]) => socket.write(`HTTP/1.1 204 No Content\r\n\r\n${evil}`)],
    [
      "after a 304",
      (socket: Parameters<RawEngine["answer"]>[0]) => socket.write(`HTTP/1.1 304 Not Modified\r\ncontent-length: 44\r\n\r\n${evil}`),
    ],
    [
      "after the last chunk",
      (socket: Parameters<RawEngine["answer"]>[0]) =>
        socket.write(`HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n${evil}`),
    ],
  ])("an unasked one %s", async (_what, answer) => {
    const { url } = await routed(answer);
    for (let i = 0; i < 8; i++) {
      const reply = await fetch(`${url}/generate`, { method: "POST", body: "{}" });
      expect(await reply.text()).not.toContain("evil");
      expect([200, 204, 304]).toContain(reply.status);
    }
  });

  it("requests on one connection are answered in their order, however they come", async () => {
    const { url } = await routed((socket, request) => {
      const body = request.slice(request.indexOf("\r\n\r\n") + 4);
      setTimeout(() => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n${body}`), body.length % 3);
    });
    const bodies = Array.from({ length: 20 }, (_, i) => `<${i}${"x".repeat((i * 37) % 50)}>`);
    const all = bodies.map((body) => post(body)).join("");
    const done = (text: string) => bodies.every((body) => text.includes(body));
    for (const pieces of [[all], all.match(/.{1,7}/gs) ?? []]) {
      const { text } = await raw(url, pieces, done);
      expect(bodies.map((body) => text.indexOf(body))).toEqual(bodies.map((body) => text.indexOf(body)).sort((a, b) => a - b));
    }
  });
});

describe("a client's request that two parsers could read differently is refused, and nothing after it is read", () => {
  const smuggled = "POST /smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
  it.each([
    ["length and chunks", "content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"],
    ["chunks and length", "transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"],
    ["two lengths", "content-length: 0\r\ncontent-length: 55\r\n", ""],
    ["two equal lengths", "content-length: 0\r\ncontent-length: 0\r\n", ""],
    ["a length in hex", "content-length: 0x5\r\n", ""],
    ["a length with a sign", "content-length: -1\r\n", ""],
    ["a length of nothing", "content-length: \r\n", ""],
    ["a length past all numbers", `content-length: ${"9".repeat(30)}\r\n`, ""],
    ["a coding with a prefix", "transfer-encoding: xchunked\r\n", "0\r\n\r\n"],
    ["two codings", "transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"],
    ["the coding twice", "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n"],
    ["a blank before the colon", "transfer-encoding : chunked\r\n", "0\r\n\r\n"],
    ["a vertical tab before the coding", "transfer-encoding:\x0bchunked\r\n", "0\r\n\r\n"],
    ["a folded coding", "transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n"],
    ["a bare LF", "x-a: b\ncontent-length: 55\r\n", ""],
    ["a bare CR", "x-a: b\rcontent-length: 55\r\n", ""],
    ["no host", "", ""],
    ["two hosts", "host: y\r\n", ""],
    ["a chunk extension", "transfer-encoding: chunked\r\n", "0;a=\n\r\n\r\n"],
    ["a chunk size with a blank", "transfer-encoding: chunked\r\n", "0 \r\n\r\n"],
    ["a chunk size with a sign", "transfer-encoding: chunked\r\n", "+0\r\n\r\n"],
    ["a chunk size ended by LF", "transfer-encoding: chunked\r\n", "0\n\n"],
    ["trailers", "transfer-encoding: chunked\r\n", "0\r\nhost: y\r\n\r\n"],
  ])("%s", async (what, fields, body) => {
    const { url, engine } = await routed((socket) => socket.write(good));
    const host = what === "no host" ? "" : "host: x\r\n";
    const { text, closed } = await raw(url, `POST /first HTTP/1.1\r\n${host}${fields}\r\n${body}${smuggled}`);
    expect(statuses(text)).toHaveLength(1);
    expect(statuses(text)[0]).toBeGreaterThanOrEqual(400);
    expect(closed).toBe(true);
    expect(engine.seen).toEqual([]);
  });

  it.each([
    ["CONNECT", "CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n"],
    ["TRACE", "TRACE / HTTP/1.1\r\nhost: x\r\n\r\n"],
    ["a target in full", "GET http://10.0.0.1/ HTTP/1.1\r\nhost: x\r\n\r\n"],
    ["a target with a blank", "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n"],
    ["HTTP/0.9", "GET /\r\n\r\n"],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"],
    ["a head without end", `GET / HTTP/1.1\r\nhost: x\r\n${"x-a: b\r\n".repeat(4_000)}`],
    ["a header past its bound", `GET / HTTP/1.1\r\nhost: x\r\nx-a: ${"b".repeat(20_000)}\r\n\r\n`],
  ])("%s is refused", async (_what, bytes) => {
    const { url, engine } = await routed((socket) => socket.write(good));
    const { text, closed } = await raw(url, bytes);
    expect(statuses(text)).toHaveLength(1);
    expect(statuses(text)[0]).toBeGreaterThanOrEqual(400);
    expect(closed).toBe(true);
    expect(engine.seen).toEqual([]);
  });

  it("a body is the engine's as it came, whatever bytes it has", async () => {
    const { url, engine } = await routed((socket) => socket.write(good));
    await raw(url, post(smuggled), goods(1));
    expect(engine.seen).toHaveLength(1);
    expect(engine.seen[0]?.endsWith(smuggled)).toBe(true);
    expect(engine.seen[0]).toContain(`content-length: ${smuggled.length}\r\n`);
  });

  it("a chunked body reaches the engine with its length, and hop fields do not", async () => {
    const { url, engine } = await routed((socket) => socket.write(good));
    const fields = "transfer-encoding: chunked\r\nconnection: keep-alive, x-hop\r\nx-hop: 1\r\nte: trailers\r\nx-end: 2\r\n";
    await raw(url, [`POST /a HTTP/1.1\r\nhost: x\r\n${fields}\r\n3\r\nab`, "c\r\n2\r\nde\r\n0\r", "\n\r\n"], goods(1));
    expect(engine.seen).toHaveLength(1);
    expect(engine.seen[0]).toMatch(/\r\ncontent-length: 5\r\n\r\nabcde$/);
    expect(engine.seen[0]).toContain("x-end: 2\r\n");
    expect(engine.seen[0]).not.toMatch(/x-hop|transfer-encoding|\bte:/);
  });
});
