import { connect, createServer, type Server, type Socket } from "node:net";
import { seededRandom, silentLogger, systemClock } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { connectionsMax, openFilesLimit } from "./connection-limit.js";
import { Dispatcher } from "./dispatcher.js";
import { serveRouter } from "./front.js";
import { defaultRouterLimits } from "./options.js";
import { socketTransport } from "./socket-transport.js";
import { startRouter } from "./start.js";
import type { ForwardRequest } from "./transport.js";

const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing[Symbol.asyncDispose]();
});

/** One end of a connection: everything that came, and the moments at which it is enough. */
class Line {
  readonly socket: Socket;
  /** In latin1: a character a byte. */
  text = "";
  isClosed = false;
  #watchers: (() => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    const wake = () => {
      for (const watcher of this.#watchers.splice(0)) watcher();
    };
    socket.on("data", (chunk: Buffer) => {
      this.text += chunk.toString("latin1");
      wake();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.isClosed = true;
      wake();
    });
  }

  async until(isEnough: (line: Line) => boolean): Promise<string> {
    while (!isEnough(this)) {
      if (this.isClosed) throw new Error(`the connection closed after ${JSON.stringify(this.text.slice(0, 500))}`);
      await new Promise<void>((resolve) => this.#watchers.push(resolve));
    }
    return this.text;
  }

  /** Waits for `wanted` in what came, and takes everything up to its end. */
  async take(wanted: string): Promise<string> {
    await this.until(({ text }) => text.includes(wanted));
    const end = this.text.indexOf(wanted) + wanted.length;
    const taken = this.text.slice(0, end);
    this.text = this.text.slice(end);
    return taken;
  }

  async closed(): Promise<string> {
    while (!this.isClosed) await new Promise<void>((resolve) => this.#watchers.push(resolve));
    return this.text;
  }
}

/** A server whose connections the test drives byte by byte; probes are answered by it. */
async function bareEngine(): Promise<
  { readonly url: string; readonly next: () => Promise<Line>; readonly lines: readonly Line[] } & AsyncDisposable
> {
  const lines: Line[] = [];
  const fresh: Line[] = [];
  const watchers: (() => void)[] = [];
  const server: Server = createServer({ noDelay: true }, (socket) => {
    const line = new Line(socket);
    lines.push(line);
    socket.once("data", (chunk: Buffer) => {
      // Probes are answered at once, and end their connections.
      const [, probed] = /^GET \/(health|model_info) /.exec(chunk.toString("latin1")) ?? [];
      if (probed !== undefined) {
        const body = probed === "health" ? "" : '{"weight_version":"1"}';
        return void socket.end(`HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
      }
      fresh.push(line);
      for (const watcher of watchers.splice(0)) watcher();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const engine = {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}`,
    lines,
    async next() {
      for (;;) {
        const line = fresh.shift();
        if (line !== undefined) return line;
        await new Promise<void>((resolve) => watchers.push(resolve));
      }
    },
    async [Symbol.asyncDispose]() {
      for (const { socket } of lines) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  open.push(engine);
  return engine;
}

async function routed(options: Parameters<typeof startRouter>[0] = {}) {
  const router = await startRouter({ ...options, limits: { probeEveryMs: 600_000, closeMs: 20, ...options.limits } });
  open.push(router);
  const engine = await bareEngine();
  router.dispatcher.fleet.add("e", engine.url);
  router.dispatcher.open("e", 1);
  return { router, engine };
}

function dial(router: { readonly url: string }, bytes = ""): Line {
  const line = new Line(connect(Number(new URL(router.url).port), "127.0.0.1"));
  line.socket.setNoDelay(true);
  if (bytes !== "") line.socket.write(bytes, "latin1");
  return line;
}

const post = (path: string, body: string, ...fields: readonly string[]) =>
  `POST ${path} HTTP/1.1\r\nhost: r\r\n${fields.map((field) => `${field}\r\n`).join("")}content-length: ${body.length}\r\n\r\n${body}`;
const ok = (body: string, ...fields: readonly string[]) =>
  `HTTP/1.1 200 OK\r\n${fields.map((field) => `${field}\r\n`).join("")}content-length: ${body.length}\r\n\r\n${body}`;
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("requests", () => {
  it("N1: pipelined ones are answered one at a time, in order, on one connection", async () => {
    const { router, engine } = await routed();
    const client = dial(router, post("/a", "1") + post("/b", "22") + post("/c", ""));
    const line = await engine.next();
    await line.take("content-length: 1\r\n\r\n1");
    await turn();
    expect(line.text).toBe("");
    line.socket.write(ok("A"));
    await line.take("content-length: 2\r\n\r\n22");
    line.socket.write(ok("B"));
    await line.take("POST /c HTTP/1.1");
    line.socket.write(ok("C"));
    expect((await client.until(({ text }) => text.endsWith("C"))).match(/\r\n\r\n[ABC]/g)).toEqual(["\r\n\r\nA", "\r\n\r\nB", "\r\n\r\nC"]);
    expect(engine.lines).toHaveLength(1);
  });

  it("chunked ones reach the engine with a length, whole", async () => {
    const { router, engine } = await routed();
    const client = dial(router, "POST /a HTTP/1.1\r\nhost: r\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel");
    await turn();
    for (const piece of ["lo\r", "\n", "1", "\r\n!\r\n0\r\n\r", "\n"]) {
      client.socket.write(piece);
      await turn();
    }
    const line = await engine.next();
    const seen = await line.take("\r\n\r\nhello!");
    expect(seen).toContain("content-length: 6\r\n");
    expect(seen).not.toMatch(/transfer-encoding/i);
    line.socket.write(ok("x"));
    await client.take("\r\n\r\nx");
  });

  it("wait for 100 Continue when they ask to", async () => {
    const { router, engine } = await routed();
    const client = dial(router, "POST /a HTTP/1.1\r\nhost: r\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    expect(await client.take("\r\n\r\n")).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    client.socket.write("hi");
    const line = await engine.next();
    expect(await line.take("\r\n\r\nhi")).not.toMatch(/expect/i);
    line.socket.write(ok("x"));
    expect(await client.take("\r\n\r\nx")).toMatch(/^HTTP\/1.1 200 OK\r\n/);
    const large = dial(router, `POST /a HTTP/1.1\r\nhost: r\r\nexpect: 100-continue\r\ncontent-length: ${1 << 30}\r\n\r\n`);
    expect(await large.closed()).toMatch(/^HTTP\/1.1 413 /);
  });

  it.each([
    ["a smuggled length", post("/a", "12345", "content-length: 6"), 400],
    ["chunks that are none", "POST /a HTTP/1.1\r\nhost: r\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400],
    ["a TLS handshake", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400],
    ["a head without end", `GET / HTTP/1.1\r\nx: ${"x".repeat(20_000)}`, 431],
  ])("N2: %s is refused, and nothing after it is read", async (_name, bytes, status) => {
    const { router, engine } = await routed();
    const client = dial(router, `${bytes}${post("/after", "")}`);
    const text = await client.closed();
    expect(text).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(text.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(text).toContain("connection: close\r\n");
    expect(engine.lines).toHaveLength(0);
  });

  it("N3: those above the bytes that may be held are answered 503, and make room when they end", async () => {
    const { router, engine } = await routed({ limits: { heldBytesMax: 10 } });
    const first = dial(router, post("/a", "12345678"));
    const line = await engine.next();
    expect(await dial(router, post("/b", "123")).closed()).toMatch(/^HTTP\/1.1 503 .*heldBytesMax/s);
    line.socket.write(ok("x"));
    await first.take("\r\n\r\nx");
    const again = dial(router, post("/c", "123"));
    await line.take("POST /c");
    line.socket.write(ok("y"));
    await again.take("\r\n\r\ny");
  });

  it("a client that leaves takes its request along, before and after the first byte", async () => {
    const { router, engine } = await routed();
    for (const begun of [false, true]) {
      const client = dial(router, post("/a", "x"));
      const line = await engine.next();
      if (begun) {
        line.socket.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab");
        await client.take("ab");
      }
      client.socket.destroy();
      await line.closed();
    }
    expect(router.dispatcher.counts.failures).toBe(0);
    expect(router.dispatcher.fleet.get("e")).toMatchObject({ inFlight: 0, errors: 0 });
  });

  it("connections that are idle, slow or left hanging are closed in their time", async () => {
    const clock = virtualClock();
    const { router } = await routed({ clock });
    const [idle, slow] = [
      dial(router, "GET /health HTTP/1.1\r\nhost: r\r\n\r\n"),
      dial(router, "POST /a HTTP/1.1\r\nhost: r\r\ncontent-length: 5\r\n\r\nab"),
    ];
    await idle.take("OK");
    while (idle.isClosed === slow.isClosed) {
      await clock.run(1_000);
      expect(clock.nowMs()).toBeLessThan(70_000);
    }
    expect([idle.isClosed, slow.isClosed]).toEqual([false, true]);
    expect(clock.nowMs()).toBeGreaterThanOrEqual(60_000);
    await clock.run(10_000);
    await idle.closed();
  });

  it("a client that does not take its answer is cut off in the end, and its engine let go", async () => {
    const clock = virtualClock();
    const { router, engine } = await routed({ clock });
    const client = dial(router, post("/a", "x"));
    client.socket.pause();
    const line = await engine.next();
    line.socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${64 << 20}\r\n\r\n`);
    line.socket.write(Buffer.alloc(64 << 20));
    for (let stuck = 0, left = -1; stuck < 100; stuck = line.socket.writableLength === left ? stuck + 1 : 0) {
      left = line.socket.writableLength;
      await turn();
    }
    await clock.run(299_000);
    expect(line.isClosed).toBe(false);
    await clock.run(5_000);
    await line.closed();
  });

  it("more connections than may be open are told so", async () => {
    const clock = systemClock;
    const parts = { limits: { ...defaultRouterLimits, closeMs: 20 }, clock, random: seededRandom(1), log: silentLogger };
    const transport = socketTransport({ connectTimeoutMs: 1_000, clock });
    const dispatcher = new Dispatcher("round_robin", transport, parts.limits, parts);
    const front = await serveRouter({ ...parts, transport, dispatcher }, { host: "127.0.0.1", port: 0, clientsMax: 1 });
    open.push({ [Symbol.asyncDispose]: front.close });
    const first = dial(front, "GET /health HTTP/1.1\r\nhost: r\r\n\r\n");
    await first.take("OK");
    expect(await dial(front, "GET /health HTTP/1.1\r\nhost: r\r\n\r\n").closed()).toMatch(/^HTTP\/1.1 503 /);
    first.socket.write("GET /health HTTP/1.1\r\nhost: r\r\n\r\n");
    await first.take("OK");
  });
});

describe("answers", () => {
  it("to HTTP/1.0 come without chunks, to HTTP/1.1 with them, and an engine may end them by closing", async () => {
    const { router, engine } = await routed();
    for (const version of ["1.0", "1.1"]) {
      for (const framing of ["transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "connection: close\r\n\r\nabc"]) {
        const client = dial(router, `GET /x HTTP/${version}\r\nhost: r\r\n\r\n`);
        const line = await engine.next();
        line.socket.write(`HTTP/1.1 200 OK\r\n${framing}`);
        line.socket.end();
        const text = version === "1.0" ? await client.closed() : await client.until(({ text }) => text.endsWith("0\r\n\r\n"));
        const [head = "", body] = text.split(/\r\n\r\n(.*)/s);
        expect(body).toBe(version === "1.0" ? "abc" : "3\r\nabc\r\n0\r\n\r\n");
        expect(/transfer-encoding/.test(head)).toBe(version === "1.1");
        expect(/content-length/.test(head)).toBe(false);
      }
    }
  });

  it("to HEAD, and without content, end with their head", async () => {
    const { router, engine } = await routed();
    const client = dial(router, "HEAD /x HTTP/1.1\r\nhost: r\r\n\r\n");
    const line = await engine.next();
    line.socket.write("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n");
    expect(await client.take("\r\n\r\n")).toContain("content-length: 99");
    for (const status of ["204 No Content", "304 Not Modified"]) {
      client.socket.write(post("/y", ""));
      await line.take("POST /y");
      line.socket.write(`HTTP/1.1 ${status}\r\n\r\n`);
      expect(await client.take("\r\n\r\n")).toMatch(new RegExp(`^HTTP/1.1 ${status}\r\n`));
    }
    expect(client.text).toBe("");
    expect(engine.lines).toHaveLength(1);
  });

  it("that are interim are passed over", async () => {
    const { router, engine } = await routed();
    const client = dial(router, post("/a", "x"));
    const line = await engine.next();
    line.socket.write(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n${ok("x")}`);
    expect(await client.take("\r\n\r\nx")).toMatch(/^HTTP\/1.1 200 OK/);
  });

  it("that are not HTTP count as broken, and nothing of them is passed on", async () => {
    const { router, engine } = await routed();
    for (const bytes of [
      "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
      "SSH-2.0-x\r\n\r\n",
      "HTTP/1.1 101 Switching\r\n\r\n",
    ]) {
      const client = dial(router, post("/a", "x"));
      const line = await engine.next();
      line.socket.write(bytes);
      await line.closed();
      router.dispatcher.open("e", 1);
      const again = await engine.next();
      again.socket.write(ok("fine"));
      expect(await client.take("fine")).toMatch(/^HTTP\/1.1 200 OK/);
      again.socket.destroy();
      await again.closed();
    }
  });

  it("R2: of no known length that break off end in a reset", async () => {
    const { router, engine } = await routed();
    const client = dial(router, "GET /x HTTP/1.0\r\n\r\n");
    const reset = new Promise<string>((resolve) =>
      client.socket.once("error", (error) => resolve("code" in error ? String(error.code) : "")),
    );
    const line = await engine.next();
    line.socket.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    await client.take("abc");
    line.socket.destroy();
    expect(await reset).toBe("ECONNRESET");
  });

  it("U3: to a slow client hold the engine back, and its connection serves on afterwards", async () => {
    const { router, engine } = await routed();
    const client = dial(router, post("/a", "x"));
    client.socket.pause();
    const line = await engine.next();
    const total = 48 << 20;
    line.socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${total}\r\n\r\n`);
    // Every piece unlike the last, so that bytes out of place show.
    const piece = (at: number) => Buffer.alloc(1 << 20, `${at >> 20},`);
    let written = 0;
    // Until nobody takes more: the router reads no further than the client does.
    for (let stuck = 0; stuck < 200 && written < total; ) {
      if (line.socket.writableLength > 0) {
        stuck++;
        await turn();
        continue;
      }
      stuck = 0;
      line.socket.write(piece(written));
      written += 1 << 20;
    }
    expect(written).toBeLessThan(total);
    const chunks: Buffer[] = [];
    let got = 0;
    const all = new Promise<void>((resolve) => {
      client.socket.removeAllListeners("data");
      client.socket.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        got += chunk.length;
        if (got > total) resolve();
      });
    });
    client.socket.resume();
    for (; written < total; written += 1 << 20) line.socket.write(piece(written));
    await all;
    const reply = Buffer.concat(chunks);
    const body = reply.subarray(reply.indexOf("\r\n\r\n") + 4);
    for (let at = 0; at < total; at += 1 << 20) expect(body.subarray(at, at + (1 << 20)).equals(piece(at)), `MiB ${at >> 20}`).toBe(true);
    const next = dial(router, post("/b", "x"));
    await line.take("POST /b");
    line.socket.write(ok("y"));
    await next.take("\r\n\r\ny");
  });

  it("of one engine never reach another request: bytes that nobody asked for end the connection (U2)", async () => {
    const { router, engine } = await routed();
    const client = dial(router, post("/a", "x"));
    const line = await engine.next();
    line.socket.write(`${ok("x")}${ok("poison")}`);
    await client.take("\r\n\r\nx");
    client.socket.write(post("/b", "x"));
    const other = await engine.next();
    other.socket.write(ok("y"));
    expect(await client.take("\r\n\r\ny")).not.toContain("poison");
  });
});

describe("connections to engines", () => {
  it("one that closed while it was idle costs nothing: the request goes out again on a new one", async () => {
    const { router, engine } = await routed();
    const client = dial(router, post("/a", "x"));
    const line = await engine.next();
    line.socket.write(ok("x"));
    await client.take("\r\n\r\nx");
    line.socket.once("data", () => line.socket.resetAndDestroy());
    client.socket.write(post("/b", "z"));
    const other = await engine.next();
    other.socket.write(ok("y"));
    await client.take("\r\n\r\ny");
    expect(router.dispatcher.fleet.get("e")).toMatchObject({ errors: 0, health: { kind: "healthy" } });
    expect(router.dispatcher.counts).toMatchObject({ failures: 0, retries: 1 });
  });

  it("U3: one that was paused for a slow client serves the next request", async () => {
    const engine = await bareEngine();
    const transport = socketTransport({ connectTimeoutMs: 1_000, clock: systemClock });
    open.push({ [Symbol.asyncDispose]: transport.close });
    const request: ForwardRequest = { id: "r", method: "GET", path: "/x", headers: [], body: null };
    // Never resumes: the client went, or had it all before it drained.
    const sink = { begin: () => {}, data: () => false, end: () => {}, cut: () => {} };
    const line = engine.next();
    for (let i = 0; i < 2; i++) {
      const attempt = transport.send(engine.url, request, sink, true);
      await (await line).take("GET /x");
      (await line).socket.write(ok("x"));
      expect(await attempt.outcome).toEqual({ kind: "answered", status: 200 });
    }
    expect(engine.lines).toHaveLength(1);
  });

  it("T1: idle ones make room for those that are needed", async () => {
    const [a, b] = [await bareEngine(), await bareEngine()];
    const transport = socketTransport({ connectTimeoutMs: 1_000, clock: systemClock, connectionsMax: 2 });
    open.push({ [Symbol.asyncDispose]: transport.close });
    const sink = { begin: () => {}, data: () => true, end: () => {}, cut: () => {} };
    const ask = (url: string) => transport.send(url, { id: "r", method: "GET", path: "/x", headers: [], body: null }, sink, true).outcome;
    const both = [ask(a.url), ask(a.url)];
    for (const line of [await a.next(), await a.next()]) line.socket.write(ok("x"));
    await Promise.all(both);
    const other = ask(b.url);
    (await b.next()).socket.write(ok("y"));
    expect(await other).toEqual({ kind: "answered", status: 200 });
    await Promise.race(a.lines.map((line) => line.closed()));
    expect(a.lines.filter(({ isClosed }) => isClosed)).toHaveLength(1);
  });

  it("are given up before the engine does so, 4 s after their last answer", async () => {
    const clock = virtualClock();
    const engine = await bareEngine();
    const transport = socketTransport({ connectTimeoutMs: 1_000, clock });
    open.push({ [Symbol.asyncDispose]: transport.close });
    const request: ForwardRequest = { id: "r", method: "GET", path: "/x", headers: [], body: null };
    const sink = { begin: () => {}, data: () => true, end: () => {}, cut: () => {} };
    const attempt = transport.send(engine.url, request, sink, true);
    const line = await engine.next();
    line.socket.write(ok("x"));
    expect(await attempt.outcome).toEqual({ kind: "answered", status: 200 });
    await clock.run(3_000);
    expect(line.isClosed).toBe(false);
    await clock.run(1_000);
    await line.closed();
    expect(clock.pending()).toBe(0);
  });

  it("that do not come about in time are given up", async () => {
    const clock = virtualClock();
    const transport = socketTransport({ connectTimeoutMs: 1_000, clock });
    const sink = { begin: () => {}, data: () => true, end: () => {}, cut: () => {} };
    // An address of documentation (RFC 5737): nobody answers, or it is refused at once.
    const attempt = transport.send("http://192.0.2.1:9", { id: "r", method: "GET", path: "/", headers: [], body: null }, sink, true);
    await clock.run(1_000);
    expect((await attempt.outcome).kind).toBe("unreachable");
    await transport.close();
  });

  it("as many as half of the open files, less 100, may be clients", () => {
    expect(connectionsMax(20_000)).toBe(9_900);
    expect(connectionsMax(1_024)).toBe(412);
    expect(connectionsMax(100)).toBe(1);
    expect(connectionsMax(null)).toBeNull();
    expect(openFilesLimit("/nowhere")).toBeNull();
    if (process.platform === "linux") expect(openFilesLimit()).toBeGreaterThan(10);
  });
});

it("bodies pass byte for byte, both ways, in every framing and however they are split", async () => {
  const { router, engine } = await routed();
  const binary = fc.uint8Array({ maxLength: 3_000 }).map((bytes) => Buffer.from(bytes).toString("latin1"));
  const cuts = fc.array(fc.nat({ max: 6_000 }), { maxLength: 3 });
  const framed = (body: string, isChunked: boolean) => {
    const half = body.length >> 1;
    const chunks = [body.slice(0, half), body.slice(half)]
      .filter((chunk) => chunk !== "")
      .map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`);
    return isChunked ? `transfer-encoding: chunked\r\n\r\n${chunks.join("")}0\r\n\r\n` : `content-length: ${body.length}\r\n\r\n${body}`;
  };
  const send = async ({ socket }: Line, text: string, at: readonly number[]) => {
    let from = 0;
    for (const end of [...at.filter((cut) => cut < text.length), text.length].sort((a, b) => a - b)) {
      socket.write(text.slice(from, end), "latin1");
      from = end;
      await turn();
    }
  };
  const client = dial(router);
  let line: Line | null = null;
  await fc.assert(
    fc.asyncProperty(
      binary,
      binary,
      fc.boolean(),
      fc.boolean(),
      fc.boolean(),
      cuts,
      cuts,
      async (there, back, a, b, isStream, cutThere, cutBack) => {
        await send(client, `POST /x HTTP/1.1\r\nhost: r\r\n${framed(there, a)}`, cutThere);
        line ??= await engine.next();
        expect(await line.take(`content-length: ${there.length}\r\n\r\n${there}`)).toContain("POST /x");
        await send(line, `HTTP/1.1 200 OK\r\ncontent-type: ${isStream ? "text/event-stream" : "x"}\r\n${framed(back, b)}`, cutBack);
        await client.take("\r\n\r\n");
        let got = "";
        if (!b) got = back === "" ? "" : (await client.until(({ text }) => text.length >= back.length)).slice(0, back.length);
        for (let more = b; more; ) {
          const size = Number.parseInt(await client.take("\r\n"), 16);
          await client.until(({ text }) => text.length >= size + 2);
          got += client.text.slice(0, size);
          client.text = client.text.slice(size + 2);
          more = size > 0;
        }
        if (!b) client.text = client.text.slice(back.length);
        expect(got).toBe(back);
        expect(client.text).toBe("");
      },
    ),
    { numRuns: 150 },
  );
});
