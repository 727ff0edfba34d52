import type { Clock, Timer } from "@slime/core";
import { connectionsMax } from "./connection-limit.js";
import { probeEngine } from "./engine-probe.js";
import { Exchange, type ExchangeOwner } from "./exchange.js";
import type { Attempt, ForwardRequest, ReplySink, Transport } from "./transport.js";
import { UpstreamConnection } from "./upstream-connection.js";

/** Servers close idle connections after 5 s (SGLang's uvicorn); leaving earlier, no request meets a connection that is just being closed. */
const idleMsMax = 4_000;
const sweepMs = 500;

interface TransportOptions {
  readonly connectTimeoutMs: number;
  readonly clock: Clock;
  /** Connections to all engines; above, idle ones make room. As many as clients unless given; null: as many as it takes. */
  readonly connectionsMax?: number | null;
}

/**
 * Engines over sockets of our own: as many connections as requests, kept between them. Bodies are neither parsed nor copied.
 * T1: idle connections never keep a request from having one: with as many as there may be, the one idle for longest closes.
 */
export function socketTransport(options: TransportOptions): Transport {
  const { clock, connectTimeoutMs } = options;
  const pools = new Map<string, EnginePool>();
  const open = new Set<UpstreamConnection>();
  const max = options.connectionsMax === undefined ? connectionsMax() : options.connectionsMax;
  const makeRoom = () => {
    if (max === null || open.size < max) return;
    let oldest: EnginePool | null = null;
    for (const pool of pools.values()) if (pool.idleSince < (oldest?.idleSince ?? Number.POSITIVE_INFINITY)) oldest = pool;
    oldest?.dropOldest();
  };
  const poolOf = (url: string): EnginePool => {
    let pool = pools.get(url);
    if (pool === undefined) pools.set(url, (pool = new EnginePool(url, { clock, connectTimeoutMs, open, makeRoom })));
    return pool;
  };
  const send: Transport["send"] = (url, request, sink, passRefusals) => poolOf(url).send(request, sink, passRefusals);
  return {
    send,
    probe: (url, what) => probeEngine(send, clock, url, what),
    forget(url) {
      pools.get(url)?.close();
      pools.delete(url);
    },
    close() {
      for (const pool of pools.values()) pool.close();
      pools.clear();
      for (const connection of [...open]) connection.abort("the router closes");
      return Promise.resolve();
    },
  };
}

/** What all pools share. */
interface PoolContext {
  readonly clock: Clock;
  readonly connectTimeoutMs: number;
  readonly open: Set<UpstreamConnection>;
  readonly makeRoom: () => void;
}

/** The connections to one engine. */
class EnginePool implements ExchangeOwner {
  readonly #address: { readonly host: string; readonly port: number };
  readonly authority: string;
  readonly #context: PoolContext;
  /** Last in, first out: what is needed least grows old at the bottom. */
  readonly #idle: UpstreamConnection[] = [];
  #sweep: Timer | null = null;
  #closed = false;

  constructor(url: string, context: PoolContext) {
    const { hostname, port, host } = new URL(url);
    this.#address = { host: hostname.replace(/^\[|\]$/g, ""), port: port === "" ? 80 : Number(port) };
    this.authority = host;
    this.#context = context;
  }

  send(request: ForwardRequest, sink: ReplySink, passRefusals: boolean): Attempt {
    const kept = this.#idle.pop();
    const connection = kept ?? this.#connect();
    const exchange = new Exchange(this, request, sink, passRefusals, connection);
    if (kept === undefined) exchange.limitConnecting(this.#context.clock, this.#context.connectTimeoutMs);
    connection.carry(exchange);
    return exchange;
  }

  dropIdle(): void {
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  /** When its oldest idle connection became idle; infinite without one. */
  get idleSince(): number {
    return this.#idle[0]?.idleSince ?? Number.POSITIVE_INFINITY;
  }

  dropOldest(): void {
    this.#idle.shift()?.destroy();
  }

  /** Ends what is idle. The pool takes no connection back afterwards. */
  close(): void {
    this.#closed = true;
    this.#sweep?.cancel();
    this.#sweep = null;
    this.dropIdle();
  }

  #connect(): UpstreamConnection {
    this.#context.makeRoom();
    const connection = new UpstreamConnection(this.#address, {
      onIdle: (idle) => this.#keep(idle),
      onClosed: (closed) => {
        this.#context.open.delete(closed);
        const at = this.#idle.lastIndexOf(closed);
        if (at >= 0) this.#idle.splice(at, 1);
      },
    });
    this.#context.open.add(connection);
    return connection;
  }

  #keep(connection: UpstreamConnection): void {
    if (this.#closed) return connection.destroy();
    connection.idleSince = this.#context.clock.nowMs();
    this.#idle.push(connection);
    this.#sweep ??= this.#context.clock.after(sweepMs, () => this.#dropOld());
  }

  #dropOld(): void {
    const oldest = this.#context.clock.nowMs() - (idleMsMax - sweepMs);
    const young = this.#idle.findIndex(({ idleSince }) => idleSince > oldest);
    for (const connection of this.#idle.splice(0, young < 0 ? this.#idle.length : young)) connection.destroy();
    this.#sweep = this.#idle.length === 0 ? null : this.#context.clock.after(sweepMs, () => this.#dropOld());
  }
}
