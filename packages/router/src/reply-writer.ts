import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Worker } from "./fleet.js";
import { Outlet } from "./socket-bytes.js";
import { SseTail } from "./sse-tail.js";
import type { ReplySink } from "./transport.js";

/** What of a request shapes its answer's framing. */
export interface ReplyShape {
  readonly method: string;
  readonly minor: 0 | 1;
  readonly keepAlive: boolean;
}

type Framing = "length" | "chunked" | "close" | "none";

const lastChunk = "0\r\n\r\n";

/**
 * One answer onto a client's socket. What is written in one turn of the event loop goes out in one call.
 * R2: an answer that broke off never looks whole: a stream ends in an error event at an event's boundary, anything else in a reset.
 * R3: `over` is called once, with whether the connection may carry another request.
 */
export class ReplyWriter implements ReplySink {
  readonly #socket: Socket;
  readonly #shape: ReplyShape;
  readonly requestId: string;
  readonly #over: (reusable: boolean) => void;
  #engine = "";
  #version: number | null = null;
  #framing: Framing = "none";
  #tail: SseTail | null = null;
  readonly #out: Outlet;
  #begun = false;
  #ended = false;
  #onDrain: (() => void) | null = null;

  constructor(socket: Socket, shape: ReplyShape, requestId: string, over: (reusable: boolean) => void) {
    this.#socket = socket;
    this.#out = new Outlet(socket);
    this.#shape = shape;
    this.requestId = requestId;
    this.#over = over;
  }

  get begun(): boolean {
    return this.#begun;
  }

  /** Who will answer, and which weights its fence vouches for. */
  readonly chosen = (worker: Worker): void => {
    this.#engine = worker.url;
    this.#version = worker.gate.kind === "open" ? worker.gate.version : null;
  };

  begin(status: number, headers: readonly string[], length: number | null): void {
    if (this.#ended) return;
    let head = `x-slime-engine: ${this.#engine}\r\nx-request-id: ${this.requestId}\r\n`;
    if (this.#version !== null) head += `x-slime-weight-version: ${this.#version}\r\n`;
    let streams = false;
    for (let at = 0; at < headers.length; at += 2) {
      const name = headers[at] ?? "";
      const value = headers[at + 1] ?? "";
      const lower = name.toLowerCase();
      if (lower === "x-slime-engine" || lower === "x-request-id" || lower === "x-slime-weight-version") continue;
      if (lower === "content-type" && value.startsWith("text/event-stream")) streams = true;
      head += `${name}: ${value}\r\n`;
    }
    this.#start(status, head, length);
    if (streams && this.#framing !== "none") this.#tail = new SseTail();
  }

  data(chunk: Buffer, resume: () => void): boolean {
    if (this.#ended) return true;
    this.#payload(this.#tail === null ? chunk : this.#tail.take(chunk));
    if (!this.#socket.writableNeedDrain) return true;
    this.#onDrain = resume;
    return false;
  }

  end(): void {
    if (this.#ended) return;
    if (this.#tail !== null) this.#payload(this.#tail.rest());
    this.#finish();
  }

  cut(reason: string): void {
    if (this.#ended) return;
    if (this.#tail === null || this.#framing === "length") {
      this.#ended = true;
      this.#out.drop();
      // A reset, not an end: an answer without a length would look whole.
      this.#socket.resetAndDestroy();
      return this.#over(false);
    }
    const message = `the engine ${this.#engine} broke off: ${reason}`;
    this.#payload(Buffer.from(`data: ${JSON.stringify({ error: { message, code: 502, type: "engine.unavailable" } })}\n\n`));
    this.#finish();
  }

  /** An answer of the router's own. */
  own(status: number, headers: Readonly<Record<string, string>>, text: string): void {
    if (this.#ended) return;
    const body = Buffer.from(text);
    let head = "";
    for (const [name, value] of Object.entries(headers)) head += `${name}: ${value}\r\n`;
    this.#start(status, head, body.length);
    if (this.#framing !== "none") this.#payload(body);
    this.#finish();
  }

  /** The socket took what it was given. */
  drained(): void {
    const resume = this.#onDrain;
    this.#onDrain = null;
    resume?.();
  }

  /** Nobody reads on. */
  gone(): void {
    this.#ended = true;
    this.#out.drop();
    // U3 holds at the other end: whoever waits for a drain must not wait for ever.
    this.drained();
  }

  /** @param lines header lines, each ended. */
  #start(status: number, lines: string, length: number | null): void {
    this.#begun = true;
    const { method, minor, keepAlive } = this.#shape;
    const bodiless = method === "HEAD" || status === 204 || status === 304;
    this.#framing = bodiless ? "none" : length !== null ? "length" : minor === 1 ? "chunked" : "close";
    let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Unknown"}\r\n${lines}`;
    if (length !== null && status !== 204) head += `content-length: ${length}\r\n`;
    else if (this.#framing === "chunked") head += "transfer-encoding: chunked\r\n";
    if (!keepAlive || this.#framing === "close") head += "connection: close\r\n";
    this.#queue(`${head}\r\n`);
  }

  #payload(bytes: Buffer): void {
    if (bytes.length === 0) return;
    if (this.#framing !== "chunked") return this.#queue(bytes);
    this.#queue(`${bytes.length.toString(16)}\r\n`);
    this.#queue(bytes);
    this.#queue("\r\n");
  }

  #queue(piece: string | Buffer): void {
    if (this.#out.isEmpty) process.nextTick(flush, this.#out);
    if (typeof piece === "string") this.#out.text(piece);
    else this.#out.bytes(piece, "lent");
  }

  #finish(): void {
    if (this.#framing === "chunked") this.#queue(lastChunk);
    this.#out.flush();
    this.#ended = true;
    this.#over(this.#shape.keepAlive && this.#framing !== "close");
  }
}

function flush(out: Outlet): void {
  out.flush();
}
