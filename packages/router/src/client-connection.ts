import type { Socket } from "node:net";
import { ChunkedDecoder } from "./chunked.js";
import { headEnd, parseRequestHead, type Refusal, type RequestHead } from "./head-parser.js";
import { ReplyWriter } from "./reply-writer.js";
import { Presence } from "./transport.js";

/** One request, whole, and where its answer goes. */
export interface InboundRequest {
  readonly head: RequestHead;
  /** Empty when there is none. */
  readonly body: Buffer;
  readonly reply: ReplyWriter;
  readonly client: Presence;
}

/** What a client's connection needs of the front. */
export interface InboundOwner {
  readonly bodyBytesMax: number;
  /** Names a request that came without `x-request-id`. */
  readonly nameRequest: (head: RequestHead) => string;
  /** Takes bytes of bodies into account, before they are kept; false when there is no room. Negative gives back. */
  readonly holdBytes: (bytes: number) => boolean;
  readonly onRequest: (request: InboundRequest) => void;
  readonly onClosed: (connection: ClientConnection) => void;
}

/** Seconds without progress after which a connection is closed. */
export interface Patience {
  /** Between requests. */
  readonly idleS: number;
  /** Within a request that does not come on. */
  readonly requestS: number;
  /** Within an answer that the client does not take. */
  readonly stalledS: number;
  /** After the last answer. */
  readonly lingerS: number;
}

/** Bytes of pipelined requests that are kept while one is answered; then reading stops until it is. */
const aheadBytesMax = 64 << 10;
const continueLine = "HTTP/1.1 100 Continue\r\n\r\n";

type Phase =
  | { readonly kind: "head" }
  | { readonly kind: "body"; readonly head: RequestHead; readonly chunks: ChunkedDecoder | null; left: number; readonly pieces: Buffer[] }
  | { readonly kind: "busy"; readonly reply: ReplyWriter; readonly client: Presence }
  /** The answer is given, the client has not read enough of it yet: before that it gets no other. */
  | { readonly kind: "draining" }
  /** The last answer is out; what still comes is thrown away, so that no reset overtakes the answer. */
  | { readonly kind: "lingering" }
  | { readonly kind: "closed" };

/**
 * One client's connection. N1: requests are answered one at a time, in their order; a request is handed on only when it is there whole, so
 * that it can be tried again. N2: after anything that is not strictly HTTP nothing more of the connection is read as requests.
 * N3: bytes held for bodies are given back exactly once.
 */
export class ClientConnection {
  readonly #socket: Socket;
  readonly #owner: InboundOwner;
  #phase: Phase = { kind: "head" };
  /** Bytes not read yet: of a head that is not whole, or of requests ahead. */
  #pending: Buffer | null = null;
  #searched = 0;
  #held = 0;
  #paused = false;
  #leaving = false;
  /** Sweeps of the owner since this phase began or made progress. */
  #quiet = 0;

  constructor(socket: Socket, owner: InboundOwner) {
    this.#socket = socket;
    this.#owner = owner;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("drain", () => {
      this.#quiet = 0;
      if (this.#phase.kind === "busy") this.#phase.reply.drained();
      else if (this.#phase.kind === "draining") this.#ready();
    });
    // A client that ends its side is gone: nobody reads on.
    socket.on("end", () => this.destroy());
    socket.on("error", () => this.destroy());
    socket.on("close", () => this.destroy());
  }

  /** Nothing of a request has come since the last answer. */
  get idle(): boolean {
    return this.#phase.kind === "head" && this.#pending === null;
  }

  /** To be called once a second. Closes what was idle or slow for too long. */
  sweep(limits: Patience): void {
    this.#quiet++;
    switch (this.#phase.kind) {
      case "head":
        if (this.idle ? this.#quiet > limits.idleS : this.#quiet > limits.requestS) this.destroy();
        return;
      case "body":
        if (this.#quiet > limits.requestS) this.destroy();
        return;
      case "draining":
        if (this.#quiet > limits.idleS) this.destroy();
        return;
      case "lingering":
        if (this.#quiet > limits.lingerS) this.destroy();
        return;
      case "busy":
        // Whoever waits for an engine has time; whoever does not take the answer holds an engine back.
        if (!this.#socket.writableNeedDrain) this.#quiet = 0;
        else if (this.#quiet > limits.stalledS) this.destroy();
        return;
      case "closed":
    }
  }

  /** Closes it now when idle, else after the answer that is under way. */
  closeWhenIdle(): void {
    this.#leaving = true;
    if (this.idle) this.destroy();
  }

  /** Answers with an error of the front's own and reads no more. */
  refuse(status: number, type: string, message: string): void {
    const reply = new ReplyWriter(this.#socket, { method: "GET", minor: 1, keepAlive: false }, "", () => this.#linger());
    reply.own(status, { "content-type": "application/json" }, JSON.stringify({ error: { message, code: status, type } }));
  }

  destroy(): void {
    const phase = this.#phase;
    if (phase.kind === "closed") return;
    this.#phase = { kind: "closed" };
    this.#pending = null;
    this.#release();
    this.#socket.destroy();
    this.#owner.onClosed(this);
    if (phase.kind !== "busy") return;
    phase.reply.gone();
    phase.client.leave();
  }

  #take(chunk: Buffer): void {
    switch (this.#phase.kind) {
      case "head":
        return this.#read(this.#pending === null ? chunk : Buffer.concat([this.#pending, chunk]));
      case "body":
        return this.#body(this.#phase, chunk, 0);
      case "busy":
      case "draining":
        this.#pending = this.#pending === null ? chunk : Buffer.concat([this.#pending, chunk]);
        if (this.#pending.length > aheadBytesMax) {
          this.#paused = true;
          this.#socket.pause();
        }
        return;
      case "lingering":
      case "closed":
    }
  }

  /** Bytes at the beginning of a request. */
  #read(bytes: Buffer): void {
    const end = headEnd(bytes, this.#searched);
    if (end === -1) {
      if (this.#pending === null) this.#quiet = 0;
      this.#searched = bytes.length - 3;
      this.#pending = bytes;
      return;
    }
    this.#searched = 0;
    this.#pending = null;
    if (typeof end !== "number") return this.#refuse(end);
    const head = parseRequestHead(bytes.toString("latin1", 0, end));
    if (head.kind === "refused") return this.#refuse(head);
    const { body } = head;
    if (body === 0) return this.#handOn(head, Buffer.alloc(0), bytes, end);
    if (typeof body === "number" && body > this.#owner.bodyBytesMax) return this.#tooLarge(body);
    if (typeof body === "number" && bytes.length - end >= body) {
      if (!this.#hold(body)) return;
      return this.#handOn(head, bytes.subarray(end, end + body), bytes, end + body);
    }
    this.#quiet = 0;
    const chunks = body === "chunked" ? new ChunkedDecoder() : null;
    const phase = { kind: "body", head, chunks, left: typeof body === "number" ? body : 0, pieces: [] } as const satisfies Phase;
    this.#phase = phase;
    if (head.expectsContinue && bytes.length === end) this.#socket.write(continueLine, "latin1");
    else if (bytes.length > end) this.#body(phase, bytes, end);
  }

  #body(phase: Extract<Phase, { kind: "body" }>, bytes: Buffer, from: number): void {
    let next: number;
    let payloadEnd: number;
    if (phase.chunks === null) {
      payloadEnd = next = Math.min(bytes.length, from + phase.left);
      phase.left -= next - from;
    } else {
      next = phase.chunks.take(bytes, from);
      payloadEnd = phase.chunks.payloadEnd;
      if (next < 0) return this.#refuse({ kind: "refused", status: 400, reason: "the chunks of the body are malformed" });
    }
    this.#quiet = 0;
    const length = payloadEnd - from;
    if (this.#held + length > this.#owner.bodyBytesMax) return this.#tooLarge(this.#held + length);
    if (!this.#hold(length)) return;
    if (length > 0) phase.pieces.push(bytes.subarray(from, payloadEnd));
    if (phase.chunks === null ? phase.left > 0 : !phase.chunks.done) return;
    const [only = Buffer.alloc(0)] = phase.pieces;
    this.#handOn(phase.head, phase.pieces.length > 1 ? Buffer.concat(phase.pieces) : only, bytes, next);
  }

  #hold(bytes: number): boolean {
    if (this.#owner.holdBytes(bytes)) {
      this.#held += bytes;
      return true;
    }
    this.refuse(503, "no_available_workers", "the router holds as many bytes of requests as it may (heldBytesMax); send fewer at once");
    return false;
  }

  #release(): void {
    if (this.#held > 0) this.#owner.holdBytes(-this.#held);
    this.#held = 0;
  }

  #handOn(head: RequestHead, body: Buffer, bytes: Buffer, next: number): void {
    if (next < bytes.length) this.#pending = bytes.subarray(next);
    const client = new Presence();
    const id = head.requestId ?? this.#owner.nameRequest(head);
    const reply = new ReplyWriter(this.#socket, head, id, this.#over);
    this.#phase = { kind: "busy", reply, client };
    this.#owner.onRequest({ head, body, reply, client });
  }

  /** The answer is out. */
  readonly #over = (reusable: boolean): void => {
    if (this.#phase.kind !== "busy") return;
    this.#release();
    if (!reusable || this.#leaving) return this.#linger();
    this.#quiet = 0;
    if (this.#socket.writableNeedDrain) this.#phase = { kind: "draining" };
    else this.#ready();
  };

  /** For the next request, which may be here already. */
  #ready(): void {
    this.#phase = { kind: "head" };
    this.#quiet = 0;
    if (this.#paused) {
      this.#paused = false;
      this.#socket.resume();
    }
    // Not within the call that ended the last answer: a client may send any number of requests ahead.
    if (this.#pending !== null) setImmediate(() => this.#again());
  }

  #again(): void {
    const ahead = this.#pending;
    if (this.#phase.kind !== "head" || ahead === null) return;
    this.#pending = null;
    this.#read(ahead);
  }

  #refuse({ status, reason }: Refusal): void {
    this.refuse(status, status === 413 ? "wire.limit" : "bad_request", reason);
  }

  #tooLarge(bytes: number): void {
    const { bodyBytesMax } = this.#owner;
    const reason = `the body is larger than bodyBytesMax (${bodyBytesMax} bytes; it has ${bytes}); send fewer prompts at once`;
    this.#refuse({ kind: "refused", status: 413, reason });
  }

  #linger(): void {
    if (this.#phase.kind === "closed") return;
    this.#phase = { kind: "lingering" };
    this.#quiet = 0;
    this.#pending = null;
    this.#release();
    this.#socket.end();
    this.#socket.resume();
  }
}
