import type { Clock, Timer } from "@slime/core";
import { invariant } from "@slime/core";
import type { ReplyHead } from "./head-parser.js";
import type { Outlet } from "./socket-bytes.js";
import { type Attempt, type AttemptOutcome, type ForwardRequest, type ReplySink, retryableStatuses, type Transport } from "./transport.js";
import { UpstreamConnection, type UpstreamExchange } from "./upstream-connection.js";

/** Servers close idle connections after 5 s (SGLang's uvicorn); leaving earlier, no request meets a connection that is just being closed. */
const idleMsMax = 4_000;
const sweepMs = 500;
/** Idle connections kept to one engine. */
const idleMax = 4_096;
/** Bytes of a probe's answer that are read. */
const probeBytesMax = 1 << 20;

interface TransportOptions {
  readonly connectTimeoutMs: number;
  readonly clock: Clock;
}

/** Engines over sockets of our own: as many connections as requests, kept between them. Bodies are neither parsed nor copied. */
export function socketTransport(options: TransportOptions): Transport {
  const pools = new Map<string, EnginePool>();
  const poolOf = (url: string): EnginePool => {
    let pool = pools.get(url);
    if (pool === undefined) pools.set(url, (pool = new EnginePool(url, options)));
    return pool;
  };
  const send: Transport["send"] = (url, request, sink, passRefusals) => poolOf(url).send(request, sink, passRefusals);
  return {
    send,
    async probe(url, { timeoutMs, version }) {
      const until = options.clock.nowMs() + timeoutMs;
      const late = `no answer to a probe within ${timeoutMs} ms`;
      const health = await ask(send, options.clock, url, "/health", until, late);
      if (typeof health === "string") return { ok: false, reason: health };
      if (health.status !== 200) return { ok: false, reason: `/health answered ${health.status}` };
      if (!version) return { ok: true, found: null };
      const info = await ask(send, options.clock, url, "/model_info", until, late);
      if (typeof info === "string") return { ok: false, reason: info };
      return { ok: true, found: weightVersion(info.body) };
    },
    forget(url) {
      pools.get(url)?.close(false);
      pools.delete(url);
    },
    close() {
      for (const pool of pools.values()) pool.close(true);
      pools.clear();
      return Promise.resolve();
    },
  };
}

/** The connections to one engine. */
class EnginePool {
  readonly #address: { readonly host: string; readonly port: number };
  /** Of the `host` field. */
  readonly #authority: string;
  readonly #options: TransportOptions;
  /** Last in, first out: what is needed least grows old at the bottom. */
  readonly #idle: UpstreamConnection[] = [];
  readonly #all = new Set<UpstreamConnection>();
  #sweep: Timer | null = null;
  #closed = false;

  constructor(url: string, options: TransportOptions) {
    const { hostname, port, host } = new URL(url);
    this.#address = { host: hostname.replace(/^\[|\]$/g, ""), port: port === "" ? 80 : Number(port) };
    this.#authority = host;
    this.#options = options;
  }

  send(request: ForwardRequest, sink: ReplySink, passRefusals: boolean): Attempt {
    const kept = this.#idle.pop();
    const connection = kept ?? this.#connect();
    const exchange = new Exchange(this, this.#authority, request, sink, passRefusals, connection);
    if (kept === undefined) exchange.limitConnecting(this.#options.clock, this.#options.connectTimeoutMs);
    connection.carry(exchange);
    return exchange;
  }

  /** A kept connection was dead: the others of its age likely are. */
  dropIdle(): void {
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  /** Ends what is idle, and with `all` what is not. The pool takes no connection back afterwards. */
  close(all: boolean): void {
    this.#closed = true;
    this.#sweep?.cancel();
    this.#sweep = null;
    this.dropIdle();
    if (all) for (const connection of [...this.#all]) connection.abort("the router closes");
  }

  #connect(): UpstreamConnection {
    const connection = new UpstreamConnection(this.#address, {
      onIdle: (idle) => this.#keep(idle),
      onClosed: (closed) => {
        this.#all.delete(closed);
        const at = this.#idle.lastIndexOf(closed);
        if (at >= 0) this.#idle.splice(at, 1);
      },
    });
    this.#all.add(connection);
    return connection;
  }

  #keep(connection: UpstreamConnection): void {
    if (this.#closed || this.#idle.length >= idleMax) return connection.destroy();
    connection.idleSince = this.#options.clock.nowMs();
    this.#idle.push(connection);
    this.#sweep ??= this.#options.clock.after(sweepMs, () => this.#dropOld());
  }

  #dropOld(): void {
    const oldest = this.#options.clock.nowMs() - (idleMsMax - sweepMs);
    const young = this.#idle.findIndex(({ idleSince }) => idleSince > oldest);
    for (const connection of this.#idle.splice(0, young < 0 ? this.#idle.length : young)) connection.destroy();
    this.#sweep = this.#idle.length === 0 ? null : this.#options.clock.after(sweepMs, () => this.#dropOld());
  }
}

type Phase = "connecting" | "sent" | "answering" | "over";

/** One try of one request: a connection's events turned into an outcome and calls of the sink. */
class Exchange implements Attempt, UpstreamExchange {
  readonly outcome: Promise<AttemptOutcome>;
  readonly sent: Promise<void> | null;
  readonly isHead: boolean;
  readonly #pool: EnginePool;
  readonly #authority: string;
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

  constructor(
    pool: EnginePool,
    authority: string,
    request: ForwardRequest,
    sink: ReplySink,
    passRefusals: boolean,
    connection: UpstreamConnection,
  ) {
    this.#pool = pool;
    this.#authority = authority;
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
    let head = `${method} ${path} HTTP/1.1\r\nhost: ${this.#authority}\r\n`;
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
        this.#pool.dropIdle();
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

/** One small GET, its answer read whole; or why there was none. */
async function ask(
  send: Transport["send"],
  clock: Clock,
  url: string,
  path: string,
  until: number,
  late: string,
): Promise<{ readonly status: number; readonly body: Buffer } | string> {
  const request: ForwardRequest = { id: "", method: "GET", path, headers: [], body: null };
  let isLate = false;
  for (let tries = 0; ; tries++) {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const sink: ReplySink = {
      begin: () => {},
      data: (chunk) => {
        bytes += chunk.length;
        if (bytes <= probeBytesMax) chunks.push(Buffer.from(chunk));
        return true;
      },
      end: () => {},
      cut: () => {},
    };
    const attempt = send(url, request, sink, true);
    const timer = clock.after(until - clock.nowMs(), () => {
      isLate = true;
      attempt.cancel();
    });
    const outcome = await attempt.outcome;
    timer.cancel();
    if (outcome.kind === "answered") return { status: outcome.status, body: Buffer.concat(chunks) };
    // A kept connection had closed meanwhile; the next one is new.
    if (outcome.kind === "stale" && tries === 0) continue;
    if (isLate) return late;
    return "reason" in outcome ? outcome.reason : outcome.kind;
  }
}

/** The engine's own word for its weights, in a `/model_info`; null when it has none. */
function weightVersion(body: Buffer): string | null {
  try {
    const json: unknown = JSON.parse(body.toString("utf8"));
    return typeof json === "object" && json !== null && "weight_version" in json ? String(json.weight_version) : null;
  } catch {
    return null;
  }
}
