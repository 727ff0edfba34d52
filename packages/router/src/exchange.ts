import { type Clock, invariant, type Timer } from "@slime/core";
import type { ReplyHead } from "./head-parser.js";
import type { Outlet } from "./socket-bytes.js";
import { type Attempt, type AttemptOutcome, type ForwardRequest, type ReplySink, retryableStatuses } from "./transport.js";
import type { UpstreamConnection, UpstreamExchange } from "./upstream-connection.js";

/** What an exchange needs of where its connection came from. */
export interface ExchangeOwner {
  /** Of the `host` field. */
  readonly authority: string;
  /** A kept connection was dead: the others of its age likely are. */
  readonly dropIdle: () => void;
}

type Phase = "connecting" | "sent" | "answering" | "over";

/** One try of one request: a connection's events turned into an outcome and calls of the sink. */
export class Exchange implements Attempt, UpstreamExchange {
  readonly outcome: Promise<AttemptOutcome>;
  readonly sent: Promise<void> | null;
  readonly isHead: boolean;
  readonly #owner: ExchangeOwner;
  readonly #request: ForwardRequest;
  readonly #sink: ReplySink;
  readonly #passRefusals: boolean;
  readonly #connection: UpstreamConnection;
  readonly #reused: boolean;
  #settle: (outcome: AttemptOutcome) => void = () => {};
  #left: (() => void) | null = null;
  #connecting: Timer | null = null;
  #phase: Phase = "connecting";
  #status = 0;
  readonly #resume = () => this.#connection.resume();

  constructor(owner: ExchangeOwner, request: ForwardRequest, sink: ReplySink, passRefusals: boolean, connection: UpstreamConnection) {
    this.#owner = owner;
    this.#request = request;
    this.#sink = sink;
    this.#passRefusals = passRefusals;
    this.#connection = connection;
    this.#reused = connection.answered > 0;
    this.isHead = request.method === "HEAD";
    this.outcome = new Promise((resolve) => (this.#settle = resolve));
    this.sent = this.#reused ? null : new Promise((resolve) => (this.#left = resolve));
  }

  limitConnecting(clock: Clock, timeoutMs: number): void {
    this.#connecting = clock.after(timeoutMs, () => {
      this.#over({ kind: "unreachable", reason: `no connection within ${timeoutMs} ms` });
      this.#connection.destroy();
    });
  }

  write(out: Outlet): void {
    const { method, path, headers, body } = this.#request;
    let head = `${method} ${path} HTTP/1.1\r\nhost: ${this.#owner.authority}\r\n`;
    for (let at = 0; at < headers.length; at += 2) head += `${headers[at] ?? ""}: ${headers[at + 1] ?? ""}\r\n`;
    const bodiless = body === null && (method === "GET" || method === "HEAD");
    out.text(bodiless ? `${head}\r\n` : `${head}content-length: ${body?.length ?? 0}\r\n\r\n`);
    if (body !== null) out.bytes(body, "kept");
  }

  onSent(): void {
    this.#connecting?.cancel();
    this.#connecting = null;
    this.#phase = "sent";
    this.#left?.();
  }

  onHead(head: ReplyHead): void {
    this.#status = head.status;
    if (!this.#passRefusals && retryableStatuses.has(head.status)) {
      this.#over({ kind: "refused", status: head.status });
      return this.#connection.destroy();
    }
    this.#phase = "answering";
    this.#sink.begin(head.status, head.headers, head.length);
  }

  onData(payload: Buffer): boolean {
    return this.#sink.data(payload, this.#resume);
  }

  onEnd(): void {
    invariant(this.#phase === "answering", "U1: an answer ends after it began");
    this.#over({ kind: "answered", status: this.#status });
    this.#sink.end();
  }

  onBroken(reason: string, connected: boolean): void {
    switch (this.#phase) {
      case "answering":
        return this.#cut(reason);
      case "connecting":
        return this.#over({ kind: connected ? "broken" : "unreachable", reason });
      case "sent":
        if (!this.#reused) return this.#over({ kind: "broken", reason });
        this.#owner.dropIdle();
        return this.#over({ kind: "stale", reason });
      case "over":
    }
  }

  readonly cancel = (): void => {
    if (this.#phase === "over") return;
    if (this.#phase === "answering") this.#cut("the engine stopped answering");
    else this.#over({ kind: "abandoned" });
    this.#connection.destroy();
  };

  #cut(reason: string): void {
    this.#over({ kind: "cut", reason });
    this.#sink.cut(reason);
  }

  #over(outcome: AttemptOutcome): void {
    this.#phase = "over";
    this.#connecting?.cancel();
    this.#connecting = null;
    this.#left?.();
    this.#settle(outcome);
  }
}
