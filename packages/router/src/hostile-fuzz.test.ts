import { request as httpRequest } from "node:http";
import { connect, type Socket } from "node:net";
import fc from "fast-check";
import { afterEach, expect, it } from "vitest";
import { httpRouter } from "./router-client.js";
import { type RunningRouter, startRouter } from "./start.js";
import { type RawEngine, rawEngine } from "./testing/index.js";

const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing[Symbol.asyncDispose]();
});

async function routed(answer: RawEngine["answer"]): Promise<{ readonly router: RunningRouter; readonly engine: RawEngine }> {
  const retry = { firstMs: 1, factor: 1, delayMsMax: 1, jitter: 0, triesMax: 2 };
  // Whatever an engine sends, it stays in.
  const router = await startRouter({ limits: { probeEveryMs: 600_000, waitMs: 500, closeMs: 20, brokenMax: 1e9, retry } });
  const engine = await rawEngine(answer);
  open.push(router, engine);
  const client = httpRouter(router.url);
  await client.add(engine.url);
  await client.close();
  return { router, engine };
}

const pieces = [
  "HTTP/1.1 200 OK\r\n",
  "HTTP/1.0 200 OK\r\n",
  "HTTP/1.1 204 No Content\r\n",
  "HTTP/1.1 304 Not Modified\r\n",
  "HTTP/1.1 100 Continue\r\n\r\n",
  "HTTP/1.1 503 Busy\r\n",
  "content-length: 5\r\n",
  "content-length: 0\r\n",
  "Content-Length:5\r\n",
  "transfer-encoding: chunked\r\n",
  "connection: close\r\n",
  "content-type: text/event-stream\r\n",
  "x-a: b\r\n",
  "x-a: b\r",
  "x-a: b\n",
  " folded\r\n",
  "\r\n",
  "\r\n",
  "hello",
  "5\r\nhello\r\n",
  "0\r\n\r\n",
  "ffffffffff\r\n",
  "data: 1\n\n",
  "\0",
  "POST /smuggled HTTP/1.1\r\nhost: x\r\n",
];
const soup = fc.oneof(
  fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((list) => list.join("")),
  fc.string({ unit: "binary-ascii", maxLength: 60 }),
);
const rarely = <T>(what: fc.Arbitrary<T>) => fc.oneof({ weight: 4, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: what });
/** Replies that are nearly right: often whole, else with a byte too many or too few. */
const nearly = fc
  .record({
    first: fc.constantFrom("", "HTTP/1.1 100 Continue\r\n\r\n"),
    status: fc.constantFrom("200 OK", "200 OK", "204 No Content", "304 Not Modified", "400 Bad", "500 Oh"),
    minor: fc.constantFrom(1, 1, 1, 0),
    framing: fc.constantFrom(
      ["content-length: 5", "hello"],
      ["content-length: 5", "hello"],
      ["content-length: 0", ""],
      ["transfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"],
      ["transfer-encoding: chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"],
      ["x-none: 1", "hello"],
    ),
    fields: fc.subarray(["connection: close", "content-type: text/event-stream", "x-a: b", "X-Empty:", "set-cookie: a=b"]),
    cut: rarely(fc.nat({ max: 120 })),
    short: rarely(fc.integer({ min: 1, max: 9 })),
    insert: rarely(fc.tuple(fc.nat({ max: 120 }), fc.constantFrom("\r", "\n", "\0", " ", "0", "evil"))),
  })
  .map(({ first, status, minor, framing: [field, body], fields, cut, short, insert }) => {
    let text = `${first}HTTP/1.${minor} ${status}\r\n${[...fields, field].join("\r\n")}\r\n\r\n${body}`;
    if (insert !== null) text = text.slice(0, insert[0]) + insert[1] + text.slice(insert[0]);
    if (short !== null) text = text.slice(0, -short);
    return cut === null ? text : text.slice(0, cut);
  });

/** What Node's own strict client makes of the answer. */
function asked(url: string): Promise<{ readonly kind: "answer" | "broken"; readonly code?: string; readonly fields: string }> {
  return new Promise((resolve) => {
    const request = httpRequest(`${url}/generate`, { method: "POST", agent: false }, (response) => {
      response.on("error", (error: NodeJS.ErrnoException) => resolve({ kind: "broken", code: error.code ?? "", fields: "" }));
      response.on("end", () => resolve({ kind: "answer", fields: response.rawHeaders.join("\n") }));
      response.resume();
    });
    request.on("error", (error: NodeJS.ErrnoException) => resolve({ kind: "broken", code: error.code ?? "", fields: "" }));
    request.end("{}");
  });
}

it("whatever an engine sends, the client gets HTTP that a strict parser takes, or a break", { timeout: 60_000 }, async () => {
  let bytes = "";
  const { router } = await routed((socket: Socket) => socket.end(bytes, "latin1"));
  const kinds = new Set<string>();
  await fc.assert(
    fc.asyncProperty(fc.oneof({ weight: 4, arbitrary: nearly }, { weight: 1, arbitrary: soup }), async (text) => {
      bytes = text;
      const { kind, code = "", fields } = await asked(router.url);
      // A parse error of llhttp's would begin with HPE.
      expect(code).not.toMatch(/^HPE/);
      expect(fields).not.toContain("smuggled");
      if (kind === "broken") expect(code).toBe("ECONNRESET");
      kinds.add(fields.includes("x-slime-engine") ? "passed on" : kind);
    }),
    { numRuns: 300 },
  );
  // The fuzz reaches both ends: what is passed on and what is not.
  expect([...kinds]).toEqual(expect.arrayContaining(["answer", "passed on"]));
  bytes = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
  expect((await asked(router.url)).kind).toBe("answer");
  expect(router.dispatcher.fleet.workers[0]?.inFlight).toBe(0);
});

it("whatever a client sends, the engine gets whole requests alone, and others are served", { timeout: 60_000 }, async () => {
  const { router, engine } = await routed((socket) => socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
  const port = Number(new URL(router.url).port);
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.oneof(
          { weight: 1, arbitrary: soup },
          {
            weight: 4,
            arbitrary: fc.constantFrom(
              "POST /a HTTP/1.1\r\nhost: x\r\n",
              "host: x\r\n",
              "GET /model_info HTTP/1.1\r\nhost: x\r\n\r\n",
              "POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}",
              "POST /generate HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            ),
          },
        ),
        { maxLength: 6 },
      ),
      async (parts) => {
        await new Promise<void>((resolve) => {
          const socket = connect(port, "127.0.0.1");
          socket.on("error", () => {});
          socket.on("close", () => resolve());
          socket.resume();
          for (const part of parts) socket.write(part, "latin1");
          // Time for what is whole to be sent on: a client that leaves takes its requests along.
          setTimeout(() => socket.end(), 5);
        });
      },
    ),
    { numRuns: 200 },
  );
  expect((await asked(router.url)).kind).toBe("answer");
  expect(engine.seen.length).toBeGreaterThan(20);
  for (const seen of engine.seen) {
    expect(seen).toMatch(/^(?:POST|GET|HEAD|PUT|DELETE|PATCH|OPTIONS) \/\S* HTTP\/1\.1\r\nhost: 127\.0\.0\.1:\d+\r\n/);
    expect(seen.slice(0, seen.indexOf("\r\n\r\n"))).not.toMatch(/transfer-encoding|content-length: \d+\r\n.*content-length/is);
  }
});

it("a client that does not read holds the engine back", async () => {
  let sent = 0;
  let pour: () => void = () => {};
  const stalled = new Promise<void>((resolve) => {
    pour = resolve;
  });
  const { router } = await routed((socket) => {
    socket.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
    const more = () => {
      // Ends when the socket stays full for a while: nobody takes any more.
      const idle = setTimeout(pour, 300);
      while (socket.write(Buffer.alloc(1 << 20))) sent += 1 << 20;
      sent += 1 << 20;
      socket.once("drain", () => {
        clearTimeout(idle);
        more();
      });
    };
    more();
  });
  const socket = connect(Number(new URL(router.url).port), "127.0.0.1");
  socket.on("error", () => {});
  socket.pause();
  socket.write("POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
  await stalled;
  // Kernel buffers on four sockets' ends, and a little of ours.
  expect(sent).toBeLessThan(64 << 20);
  socket.destroy();
  await expect.poll(() => router.dispatcher.fleet.workers[0]?.inFlight).toBe(0);
});

it("a client that leaves in the middle of a stream, or of a pair's, takes it along", async () => {
  const closed: Promise<void>[] = [];
  const head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
  const stream = (socket: Socket) => {
    closed.push(new Promise((resolve) => socket.once("close", () => resolve())));
    socket.write(head);
  };
  const { router, engine } = await routed(stream);
  const decode = await rawEngine(stream);
  open.push(decode);
  const client = httpRouter(router.url);
  for (const isPair of [false, true]) {
    if (isPair) {
      await client.add(engine.url, { role: { kind: "prefill", bootstrapPort: 1 } });
      await client.add(decode.url, { role: { kind: "decode" } });
      engine.answer = (socket) => closed.push(new Promise((resolve) => socket.once("close", () => resolve())));
    }
    const gone = new AbortController();
    const reply = await fetch(`${router.url}/generate`, { method: "POST", body: "{}", signal: gone.signal });
    expect(reply.status).toBe(200);
    gone.abort();
    await Promise.all(closed);
    expect(closed).toHaveLength(isPair ? 3 : 1);
    await expect.poll(() => router.dispatcher.fleet.workers.map(({ inFlight }) => inFlight)).toEqual(isPair ? [0, 0] : [0]);
    expect(router.dispatcher.counts).toMatchObject({ failures: 0, cut: 0 });
  }
  await client.close();
});
