/**
 * Connections in memory with a network's faults. Bytes only: whatever crosses went through the codec.
 * Invariants: W1 what arrives, arrives in order and once; W2 a message that is lost takes its connection with it, as on TCP; W3 a partition
 * holds messages back and delivers them when it heals, unless a side gave the connection up meanwhile; W4 after `over` an end hears nothing.
 */
import type { Clock, Random } from "@slime/core";

export interface NetworkOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Least and largest delay of a message, ms. */
  readonly delayMs: readonly [number, number];
  /** Chance that a message is lost, and its connection broken by it (W2). */
  loss: number;
  /** How long after the network fell silent each side notices: the dialler's and the listener's keepalive. */
  readonly keepaliveMs: readonly [number, number];
  readonly onMessage: (bytes: Uint8Array) => void;
}

/** One end of a connection. */
export interface WireEnd {
  readonly send: (bytes: Uint8Array) => void;
  /** Orderly: the other end hears everything said before. */
  readonly close: () => void;
  hear: (bytes: Uint8Array) => void;
  over: (reason: string) => void;
}

type Side = 0 | 1;

/** The cluster's network: who is cut off from the head, and every connection there is. */
export class SimNetwork {
  readonly options: NetworkOptions;
  readonly #cutOff = new Map<string, number>();
  readonly #connections = new Set<Connection>();
  #partitions = 0;

  constructor(options: NetworkOptions) {
    this.options = options;
  }

  reaches(machine: string): boolean {
    return !this.#cutOff.has(machine);
  }

  delayMs(): number {
    const [least, most] = this.options.delayMs;
    return least + (most - least) * this.options.random.unit();
  }

  /** A connection from a machine to the head: the dialler's end, then the listener's. */
  connect(machine: string): readonly [WireEnd, WireEnd] {
    const connection = new Connection(this, machine, () => this.#connections.delete(connection));
    this.#connections.add(connection);
    return connection.ends;
  }

  /** Nothing passes between this machine and the head until `heal`. */
  partition(machine: string): void {
    if (!this.reaches(machine)) return;
    const number = ++this.#partitions;
    this.#cutOff.set(machine, number);
    for (const connection of this.#of(machine)) {
      this.options.keepaliveMs.forEach(
        (ms, side) =>
          void this.options.clock.after(ms, () => {
            if (this.#cutOff.get(machine) === number) connection.giveUp(side as Side, "keepalive: no answer");
          }),
      );
    }
  }

  heal(machine: string): void {
    this.#cutOff.delete(machine);
    for (const connection of this.#of(machine)) connection.healed();
  }

  /** Breaks a machine's connections at once: what was under way is lost, both sides hear of it. */
  cut(machine: string): void {
    for (const connection of this.#of(machine)) connection.reset("connection reset");
  }

  /** A machine lost its power: its ends are gone without a word. */
  vanish(machine: string): void {
    for (const connection of this.#of(machine)) connection.vanish(0);
  }

  #of(machine: string): readonly Connection[] {
    return [...this.#connections].filter((connection) => connection.machine === machine);
  }
}

class Connection {
  readonly machine: string;
  readonly ends: readonly [WireEnd, WireEnd];
  readonly #network: SimNetwork;
  readonly #open: [boolean, boolean] = [true, true];
  readonly #lastAtMs: [number, number] = [0, 0];
  readonly #forget: () => void;
  #held: (() => void)[] = [];
  #broken = false;

  constructor(network: SimNetwork, machine: string, forget: () => void) {
    this.#network = network;
    this.machine = machine;
    this.#forget = forget;
    const end = (side: Side): WireEnd => ({
      send: (bytes) => this.#send(side, bytes),
      close: () => this.#close(side),
      hear() {},
      over() {},
    });
    this.ends = [end(0), end(1)];
  }

  #send(from: Side, bytes: Uint8Array): void {
    if (!this.#open[from]) return;
    const { loss, random, onMessage } = this.#network.options;
    if (loss > 0 && random.unit() < loss) return this.reset("a message was lost");
    const to = (1 - from) as Side;
    this.#deliver(to, () => {
      if (!this.#open[to]) return;
      onMessage(bytes);
      this.ends[to].hear(bytes);
    });
  }

  #close(from: Side): void {
    if (!this.#open[from]) return;
    this.#open[from] = false;
    const to = (1 - from) as Side;
    this.#deliver(to, () => this.giveUp(to, "the peer ended the stream"));
  }

  #deliver(to: Side, act: () => void): void {
    const { clock } = this.#network.options;
    const atMs = Math.max(this.#lastAtMs[to], clock.nowMs() + this.#network.delayMs());
    this.#lastAtMs[to] = atMs;
    clock.after(atMs - clock.nowMs(), () => {
      if (this.#broken) return;
      if (this.#network.reaches(this.machine)) act();
      else this.#held.push(act);
    });
  }

  giveUp(side: Side, reason: string): void {
    if (!this.#open[side]) return;
    this.#open[side] = false;
    if (!this.#open[0] && !this.#open[1]) this.#forget();
    this.ends[side].over(reason);
  }

  healed(): void {
    const held = this.#held;
    this.#held = [];
    for (const act of held) act();
    // A side that gave up answers whatever comes with a reset.
    if (this.#open[0] !== this.#open[1]) for (const side of [0, 1] as const) this.giveUp(side, "connection reset");
  }

  reset(reason: string): void {
    if (this.#broken) return;
    this.#broken = true;
    const { clock } = this.#network.options;
    for (const side of [0, 1] as const) clock.after(0, () => this.giveUp(side, reason));
  }

  vanish(side: Side): void {
    this.#open[side] = false;
    this.#broken = true;
    const other = (1 - side) as Side;
    this.#network.options.clock.after(this.#network.options.keepaliveMs[other], () => this.giveUp(other, "keepalive: no answer"));
  }
}
