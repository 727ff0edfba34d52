import { createServer } from "node:http";
import { Duplex } from "node:stream";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ClientConnection } from "./client-connection.js";
import { headEnd, headLimits, parseReplyHead, parseRequestHead } from "./head-parser.js";

const request = (text: string) => parseRequestHead(text);
const lines = (...all: readonly string[]) => `${all.join("\r\n")}\r\n\r\n`;

describe("requests", () => {
  it("says what a head means, and passes on what is end to end", () => {
    const head = lines(
      "POST /generate?x=1 HTTP/1.1",
      "Host: router:80",
      "Content-Type:application/json",
      "X-SMG-Routing-Key: \t k e y \t",
      "X-Empty:",
      "Connection: keep-alive, X-Hop",
      "X-Hop: 1",
      "Keep-Alive: timeout=5",
      "TE: trailers",
      "Upgrade: h2c",
      "Expect: 100-Continue",
      "X-Request-Id: r1",
      "Content-Length: 12",
    );
    expect(request(head)).toEqual({
      kind: "request",
      method: "POST",
      target: "/generate?x=1",
      body: 12,
      keepAlive: true,
      minor: 1,
      expectsContinue: true,
      requestId: "r1",
      headers: ["Content-Type", "application/json", "X-SMG-Routing-Key", "k e y", "X-Empty", ""],
    });
  });

  it.each<[string, Partial<ReturnType<typeof request>>]>([
    [lines("GET / HTTP/1.1", "Host: a"), { body: 0, keepAlive: true }],
    [lines("GET / HTTP/1.1", "Host: a", "Connection: close"), { keepAlive: false }],
    [lines("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: h2c"), { keepAlive: false, headers: [] }],
    [lines("GET / HTTP/1.0"), { keepAlive: false, minor: 0 }],
    [lines("GET / HTTP/1.0", "Connection: Keep-Alive"), { keepAlive: false }],
    [lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: Chunked"), { body: "chunked" }],
    [lines("POST / HTTP/1.0", "Expect: 100-continue", "Content-Length: 1"), { expectsContinue: false }],
    [lines("GET / HTTP/1.1", "Host: [::1]:80", "X: \xe4"), { headers: ["X", "\xe4"] }],
  ])("takes %j", (text, wanted) => expect(request(text)).toMatchObject({ kind: "request", ...wanted }));

  it.each<[string, number, string]>([
    ["two lengths", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 6")],
    ["the same length twice", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "content-length: 5")],
    ["a list of lengths", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5, 5")],
    ["a signed length", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: +5")],
    ["a negative length", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: -1")],
    ["a hex length", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: 0x5")],
    ["a length and a tab", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5\t")],
    ["no length", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: ")],
    ["a length beyond all numbers", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: 9999999999999999999")],
    ["length and chunks", 400, lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked")],
    ["chunks and length", 400, lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 5")],
    ["another coding", 501, lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked")],
    ["a coding in disguise", 501, lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked")],
    ["chunks twice", 400, lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")],
    ["chunks in 1.0", 400, lines("POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked")],
    ["a blank before the colon", 400, lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding : chunked")],
    ["a folded line", 400, lines("GET / HTTP/1.1", "Host: a", "X: 1", " folded")],
    ["a folded first line", 400, lines("GET / HTTP/1.1", " Host: a")],
    ["a bare line feed", 400, "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"],
    ["a bare carriage return", 400, lines("GET / HTTP/1.1", "Host: a\rX: 1")],
    ["a NUL", 400, lines("GET / HTTP/1.1", "Host: a", "X: a\0b")],
    ["a control character", 400, lines("GET / HTTP/1.1", "Host: a", "X: a\x7f")],
    ["no name", 400, lines("GET / HTTP/1.1", "Host: a", ": 1")],
    ["no colon", 400, lines("GET / HTTP/1.1", "Host: a", "X")],
    ["a name that is no token", 400, lines("GET / HTTP/1.1", "Host: a", "X(y): 1")],
    ["no host", 400, lines("GET / HTTP/1.1")],
    ["two hosts", 400, lines("GET / HTTP/1.1", "Host: a", "Host: b")],
    ["a host with a path", 400, lines("GET / HTTP/1.1", "Host: a/b")],
    ["absolute form", 400, lines("GET http://b/ HTTP/1.1", "Host: a")],
    ["authority form", 400, lines("CONNECT b:80 HTTP/1.1", "Host: a")],
    ["asterisk form", 400, lines("OPTIONS * HTTP/1.1", "Host: a")],
    ["a fragment", 400, lines("GET /a#b HTTP/1.1", "Host: a")],
    ["two blanks", 400, lines("GET  / HTTP/1.1", "Host: a")],
    ["a blank in the target", 400, lines("GET /a b HTTP/1.1", "Host: a")],
    ["a target beyond ASCII", 400, lines("GET /\xe4 HTTP/1.1", "Host: a")],
    ["no version", 400, lines("GET /", "Host: a")],
    ["another version", 505, lines("GET / HTTP/2.0", "Host: a")],
    ["an unknown method", 501, lines("BREW / HTTP/1.1", "Host: a")],
    ["TRACE", 501, lines("TRACE / HTTP/1.1", "Host: a")],
    ["an empty line before", 400, `\r\n${lines("GET / HTTP/1.1", "Host: a")}`],
    ["another expectation", 417, lines("POST / HTTP/1.1", "Host: a", "Expect: 200-ok")],
    ["too many fields", 431, lines("GET / HTTP/1.1", "Host: a", ...Array.from({ length: headLimits.fieldsMax }, (_, i) => `X${i}: 1`))],
  ])("refuses %s", (_name, status, text) => expect(request(text)).toMatchObject({ kind: "refused", status }));

  it("finds the end of a head, and refuses early what can never become one", () => {
    const head = Buffer.from(lines("GET / HTTP/1.1", "Host: a"), "latin1");
    expect(headEnd(head)).toBe(head.length);
    for (let cut = 0; cut < head.length; cut++) expect(headEnd(head.subarray(0, cut))).toBe(-1);
    expect(headEnd(Buffer.from("GET / HTTP/1.1\nHost: a\n\n"))).toMatchObject({ status: 400 });
    expect(headEnd(Buffer.from("\x16\x03\x01\x02\x00"))).toMatchObject({ status: 400 });
    expect(headEnd(Buffer.alloc(headLimits.bytesMax + 1, "x"))).toMatchObject({ status: 431 });
    expect(headEnd(Buffer.from(lines("GET / HTTP/1.1", `X: ${"x".repeat(headLimits.bytesMax)}`)))).toMatchObject({ status: 431 });
  });
});

describe("replies", () => {
  it.each<[string, boolean, Partial<ReturnType<typeof parseReplyHead>>]>([
    [lines("HTTP/1.1 200 OK", "Content-Length: 3", "X: 1"), false, { status: 200, body: 3, keepAlive: true, headers: ["X", "1"] }],
    [lines("HTTP/1.1 200", "Transfer-Encoding: chunked"), false, { body: "chunked", keepAlive: true, length: null }],
    [lines("HTTP/1.1 200 OK"), false, { body: "close", keepAlive: false }],
    [lines("HTTP/1.0 200 OK", "Content-Length: 3"), false, { body: 3, keepAlive: false }],
    [lines("HTTP/1.1 200 OK", "Content-Length: 3", "Connection: close"), false, { keepAlive: false }],
    [lines("HTTP/1.1 200 OK", "Content-Length: 3"), true, { body: 0, length: 3, keepAlive: true }],
    [lines("HTTP/1.1 204 No Content"), false, { body: 0, keepAlive: true }],
    [lines("HTTP/1.1 304 Not Modified", "Content-Length: 3"), false, { body: 0, length: 3 }],
    [lines("HTTP/1.1 100 Continue"), false, { status: 100, body: 0 }],
  ])("takes %j", (text, toHead, wanted) => expect(parseReplyHead(text, toHead)).toMatchObject({ kind: "reply", ...wanted }));

  it.each([
    lines("HTTP/2 200"),
    lines("HTTP/1.1 99 low"),
    lines("HTTP/1.1 200 OK", "Content-Length: 3", "Content-Length: 4"),
    lines("HTTP/1.1 200 OK", "Content-Length: 3", "Transfer-Encoding: chunked"),
    lines("HTTP/1.1 200 OK", "Transfer-Encoding: gzip"),
    lines("HTTP/1.1 200 OK\nX: 1"),
    lines("200 OK"),
  ])("refuses %j", (text) => expect(parseReplyHead(text, false).kind).toBe("refused"));
});

/** What a server made of a connection's bytes: each request it took, then whether it refused the rest. */
interface Reading {
  readonly requests: { readonly method: string; readonly target: string; readonly fields: readonly string[]; readonly body: string }[];
  refused: boolean;
}

/** A connection without a network: bytes are put in, what is written is kept. */
class Wire extends Duplex {
  written = "";
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }
  setTimeout(): this {
    return this;
  }
  resetAndDestroy(): this {
    return this.destroy();
  }
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written += chunk.toString("latin1");
    done();
  }
}

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};
const endToEnd = (fields: readonly string[]) => fields.map((text, at) => (at % 2 === 0 ? text.toLowerCase() : text));

async function ours(pieces: readonly Buffer[]): Promise<Reading> {
  const reading: Reading = { requests: [], refused: false };
  const wire = new Wire();
  new ClientConnection(wire as never, {
    bodyBytesMax: 1 << 20,
    nameRequest: () => "id",
    holdBytes: () => true,
    onRequest({ head, body, reply }) {
      reading.requests.push({ method: head.method, target: head.target, fields: endToEnd(head.headers), body: body.toString("latin1") });
      reply.own(200, {}, "");
    },
    onClosed: () => {},
  });
  for (const piece of pieces) {
    wire.push(piece);
    await turns(2);
  }
  await turns(12);
  reading.refused = /HTTP\/1\.1 [45]/.test(wire.written);
  wire.destroy();
  return reading;
}

async function llhttp(bytes: Buffer): Promise<Reading> {
  const reading: Reading = { requests: [], refused: false };
  const wire = new Wire();
  const server = createServer({ requireHostHeader: false }, (message, response) => {
    const chunks: Buffer[] = [];
    message.on("data", (chunk: Buffer) => chunks.push(chunk));
    message.on("end", () => {
      const body = Buffer.concat(chunks).toString("latin1");
      const fields = message.rawHeaders.map((text, at) => (at % 2 === 0 ? text.toLowerCase() : text));
      reading.requests.push({ method: message.method ?? "", target: message.url ?? "", fields, body });
      response.end();
    });
  });
  server.on("clientError", () => (reading.refused = true));
  server.emit("connection", wire);
  wire.push(bytes);
  await turns(20);
  wire.destroy();
  return reading;
}

const hop = /^(connection|keep-alive|proxy-\w+|te|trailer|upgrade|host|content-length|transfer-encoding|expect|x-request-id)$/;
const nominated = (fields: readonly string[]) =>
  fields.flatMap((text, at) => (fields[at - 1] === "connection" ? text.toLowerCase().split(/[ ,\t]+/) : []));
const passedOn = (fields: readonly string[]) => {
  const named = nominated(fields);
  return fields.filter((_, at) => !hop.test(fields[at - (at % 2)] ?? "") && !named.includes(fields[at - (at % 2)] ?? ""));
};

/** Pieces that smugglers use, between pieces that are right. */
const piece = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom("GET / HTTP/1.1\r\n", "POST /generate HTTP/1.1\r\n", "POST /a?b HTTP/1.0\r\n", "HEAD /x HTTP/1.1\r\n"),
  },
  { weight: 4, arbitrary: fc.constantFrom("Host: a\r\n", "Host: a\r\nContent-Length: 5\r\n", "Host: a\r\nTransfer-Encoding: chunked\r\n") },
  { weight: 4, arbitrary: fc.constantFrom("\r\n", "\r\nhello", "\r\n5\r\nhello\r\n0\r\n\r\n", "\r\n\r\n") },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      "Content-Length: 5\r\n",
      "Content-Length: 0\r\n",
      "Content-Length : 5\r\n",
      "Content-Length: 05\r\n",
      "Content-Length:\t5 \r\n",
      "Content-Length: 5,5\r\n",
      "content-length: 6\r\n",
      "Transfer-Encoding: chunked\r\n",
      "Transfer-Encoding:\tchunked \r\n",
      "Transfer-Encoding: identity\r\n",
      "Transfer-Encoding: chunked, chunked\r\n",
      "Transfer-encoding: CHUNKED\r\n",
      "X: 1\r\n",
      " folded\r\n",
      "X: \xff\r\n",
      "X:\r\n",
      "Connection: close\r\n",
      "Connection: keep-alive, X\r\n",
      "Connection: upgrade\r\nUpgrade: h2c\r\n",
      "Expect: 100-continue\r\n",
      "X: a\0\r\n",
      "X\x01: a\r\n",
      "\n",
      "\r",
      "\r\r\n",
      "\n\n",
      "X: 1\n",
      " ",
      "\t",
      ":",
      "0\r\n\r\n",
      "5\r\nhello\r\n",
      "5;a=b\r\nhello\r\n",
      "05\r\nhello\r\n",
      "5 \r\nhello\r\n",
      "ffffffffff\r\n",
      "-1\r\n",
      "5\nhello\n",
      "0\r\nX: 1\r\n\r\n",
    ),
  },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 4 }).map((text) => Buffer.from(text).toString("latin1")) },
);
const whole = fc.constantFrom(
  lines("GET /g HTTP/1.1", "Host: a", "X-A: 1"),
  `${lines("POST /p HTTP/1.1", "Host: a", "Content-Length: 11")}hello world`,
  `${lines("POST /c HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")}5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n`,
  lines("GET /z HTTP/1.0", "Connection: keep-alive"),
);
/** Right requests, broken in some places: a piece put in, a byte changed or taken out. */
const broken = fc
  .tuple(
    fc.array(whole, { minLength: 1, maxLength: 3 }),
    fc.array(fc.tuple(fc.nat(), fc.constantFrom("insert" as const, "replace" as const, "remove" as const), piece), { maxLength: 2 }),
  )
  .map(([wholes, changes]) => {
    let text = wholes.join("");
    for (const [where, how, what] of changes) {
      const at = where % text.length;
      text = text.slice(0, at) + (how === "remove" ? "" : what) + text.slice(how === "insert" ? at : at + 1);
    }
    return text;
  });
const stream = fc.oneof(
  fc.array(piece, { maxLength: 12 }).map((all) => all.join("")),
  broken,
);

describe("against llhttp", () => {
  it("W1, W2: every request we take, llhttp takes: same method, target, fields and body, in the same order", async () => {
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(stream, async (text) => {
        // Each gets bytes of its own: ours moves the payload of chunks within them.
        const [mine, theirs] = await Promise.all([ours([Buffer.from(text, "latin1")]), llhttp(Buffer.from(text, "latin1"))]);
        taken += mine.requests.length;
        // Ours may refuse what llhttp takes, then read no further; never the other way round.
        expect(mine.requests.length).toBeLessThanOrEqual(theirs.requests.length);
        for (const [at, { method, target, fields, body }] of mine.requests.entries()) {
          const their = theirs.requests[at];
          expect({ method, target, body }).toEqual({ method: their?.method, target: their?.target, body: their?.body });
          expect(passedOn(fields)).toEqual(passedOn(their?.fields ?? []));
        }
      }),
      { numRuns: 1_000 },
    );
    expect(taken).toBeGreaterThan(250);
  });

  it("W3, K1: how the bytes are split over reads changes nothing", async () => {
    await fc.assert(
      fc.asyncProperty(stream, fc.array(fc.nat(), { maxLength: 6 }), async (text, cuts) => {
        const bytes = Buffer.from(text, "latin1");
        const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
        const pieces = [...at, bytes.length]
          .map((end, i) => Buffer.from(bytes.subarray(at[i - 1] ?? 0, end)))
          .filter(({ length }) => length > 0);
        expect(await ours(pieces)).toEqual(await ours([Buffer.from(text, "latin1")]));
      }),
      { numRuns: 300 },
    );
  });
});
