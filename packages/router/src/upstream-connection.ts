import { connect, type Socket } from "node:net";
import { ChunkedDecoder } from "./chunked.js";
import { type BodyLength, headEnd, parseReplyHead, type Refusal, type ReplyHead } from "./head-parser.js";
import { Outlet } from "./socket-bytes.js";

/** What happens to the one request a connection carries. U1: `onHead` at most once, before `onData`; after `onEnd` or `onBroken` nothing. */
export interface UpstreamExchange {
  readonly isHead: boolean;
  /** Writes head and body. */
  readonly write: (out: Outlet) => void;
  readonly onSent: () => void;
  readonly onHead: (head: ReplyHead) => void;
  /** The payload is lent until the call returns. False asks for a pause until `resume`. */
  readonly onData: (payload: Buffer) => boolean;
  readonly onEnd: () => void;
  /** @param connected false: no connection came about. */
  readonly onBroken: (reason: string, connected: boolean) => void;
}

/** What the connection's owner is told. */
export interface UpstreamOwner {
  /** The answer is complete and the connection may carry another request. */
  readonly onIdle: (connection: UpstreamConnection) => void;
  readonly onClosed: (connection: UpstreamConnection) => void;
}

/**
 * All connections read into the same bytes, one after another, and every read is used up before the next: a buffer per read would be 64 KiB
 * of garbage per answer, which costs more to collect than the answer to copy.
 */
const readBytes = Buffer.allocUnsafeSlow(128 << 10);

type Phase = "connecting" | "idle" | "waiting" | "answering" | "closed";

/**
 * One connection to an engine; one request at a time.
 * U2: bytes that no request asked for close it, so an answer can never reach another request. U3: it is idle only when the whole request
 * has left, the answer ended where its head said, and reading goes on: a socket paused for a slow client would hang the next request.
 */
export class UpstreamConnection {
  readonly #socket: Socket;
  readonly #owner: UpstreamOwner;
  #phase: Phase = "connecting";
  #exchange: UpstreamExchange | null = null;
  /** Bytes of a head that is not whole yet. */
  #partial: Buffer | null = null;
  #left: BodyLength = 0;
  #chunks: ChunkedDecoder | null = null;
  #keepAlive = false;
  #paused = false;
  /** Requests it has answered. */
  answered = 0;
  /** When it became idle, in the owner's time. */
  idleSince = 0;

  constructor(address: { readonly host: string; readonly port: number }, owner: UpstreamOwner) {
    this.#owner = owner;
    const onread = {
      buffer: readBytes,
      callback: (length: number) => {
        this.#take(readBytes.subarray(0, length));
        return true;
      },
    };
    const socket = connect({ ...address, noDelay: true, onread });
    this.#socket = socket;
    socket.on("connect", () => this.#connected());
    socket.on("end", () => this.#ended());
    socket.on("error", (error) => this.#close(reasonOf(error)));
    socket.on("close", () => this.#close("the engine closed the connection"));
  }

  /** Sends a request; at once when connected. Only when idle or fresh. */
  carry(exchange: UpstreamExchange): void {
    this.#exchange = exchange;
    if (this.#phase !== "idle") return;
    this.#phase = "waiting";
    this.#write(exchange);
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** Ends it now, without a word to the exchange. Idempotent. */
  destroy(): void {
    this.#exchange = null;
    this.#close("");
  }

  /** Ends it now; the exchange hears why. Idempotent. */
  abort(reason: string): void {
    this.#close(reason);
  }

  #connected(): void {
    if (this.#phase !== "connecting") return;
    if (this.#exchange === null) return this.#close("");
    this.#phase = "waiting";
    this.#write(this.#exchange);
  }

  #write(exchange: UpstreamExchange): void {
    const out = new Outlet(this.#socket);
    exchange.write(out);
    out.flush();
    exchange.onSent();
  }

  #take(chunk: Buffer): void {
    if (this.#phase === "answering") return this.#body(chunk, 0);
    if (this.#phase === "waiting") return this.#head(chunk);
    // U2.
    this.#close("the engine sent bytes that nobody asked for");
  }

  #head(chunk: Buffer): void {
    let bytes = this.#partial === null ? chunk : Buffer.concat([this.#partial, chunk]);
    let searched = (this.#partial?.length ?? 0) - 3;
    for (;;) {
      const end = headEnd(bytes, searched);
      if (end === -1) {
        this.#partial = Buffer.from(bytes);
        return;
      }
      if (typeof end !== "number") return this.#notHttp(end);
      const head = parseReplyHead(bytes.toString("latin1", 0, end), this.#exchange?.isHead === true);
      if (head.kind === "refused") return this.#notHttp(head);
      if (head.status === 101) return this.#close("the engine switched protocols unasked");
      if (head.status >= 200) {
        this.#partial = null;
        return this.#begin(head, bytes, end);
      }
      // An interim answer: the real one follows.
      bytes = bytes.subarray(end);
      searched = 0;
      if (bytes.length === 0) {
        this.#partial = null;
        return;
      }
    }
  }

  #notHttp({ reason }: Refusal): void {
    this.#close(`the engine's answer is not HTTP: ${reason}`);
  }

  #begin(head: ReplyHead, bytes: Buffer, end: number): void {
    this.#phase = "answering";
    this.#left = head.body;
    this.#keepAlive = head.keepAlive;
    if (head.body === "chunked") this.#chunks = new ChunkedDecoder();
    this.#exchange?.onHead(head);
    // The exchange may have given up on seeing the head.
    if (this.#exchange !== null) this.#body(bytes, end);
  }

  #body(bytes: Buffer, from: number): void {
    if (this.#chunks !== null) {
      const next = this.#chunks.take(bytes, from);
      if (next < 0) return this.#close("the engine's chunks are malformed");
      this.#pass(bytes.subarray(from, this.#chunks.payloadEnd));
      if (this.#chunks.done) this.#done(next < bytes.length);
    } else if (typeof this.#left === "number") {
      const next = Math.min(bytes.length, from + this.#left);
      this.#left -= next - from;
      const payload = from === 0 && next === bytes.length ? bytes : bytes.subarray(from, next);
      this.#pass(payload);
      if (this.#left === 0) this.#done(next < bytes.length);
    } else this.#pass(bytes.subarray(from));
  }

  #pass(payload: Buffer): void {
    if (payload.length === 0 || this.#exchange === null) return;
    if (this.#exchange.onData(payload) || this.#paused) return;
    this.#paused = true;
    this.#socket.pause();
  }

  /** @param more bytes follow the answer's end. */
  #done(more: boolean): void {
    const exchange = this.#exchange;
    if (exchange === null || this.#phase === "closed") return;
    this.#exchange = null;
    this.#chunks = null;
    this.answered++;
    if (more || !this.#keepAlive || this.#socket.writableLength > 0) this.#close("");
    else {
      this.#phase = "idle";
      this.resume();
      this.#owner.onIdle(this);
    }
    exchange.onEnd();
  }

  #ended(): void {
    if (this.#phase === "answering" && this.#left === "close") this.#done(false);
    this.#close("the engine closed the connection");
  }

  #close(reason: string): void {
    if (this.#phase === "closed") return;
    const connected = this.#phase !== "connecting";
    this.#phase = "closed";
    const exchange = this.#exchange;
    this.#exchange = null;
    this.#partial = null;
    this.#socket.destroy();
    this.#owner.onClosed(this);
    exchange?.onBroken(reason, connected);
  }
}

/** The words of a socket's error, code first. */
function reasonOf(error: Error): string {
  const cause: unknown = error instanceof AggregateError ? error.errors[0] : error;
  const { message } = cause instanceof Error ? cause : error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  return code === "" || message.includes(code) ? message : `${code}: ${message}`;
}
