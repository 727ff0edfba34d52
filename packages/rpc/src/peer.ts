import { type Clock, type Logger, SlimeError, silentLogger, systemClock, type Timer } from "@slime/core";
import {
  type CallHead,
  type MessageSink,
  messageType,
  readMessage,
  writeBare,
  writeCall,
  writeCancel,
  writeFailure,
  writeGoodbye,
  writeHello,
  writeResult,
  writeSend,
} from "./envelope.js";
import { type Failure, fromFailure, toFailure } from "./failure.js";
import { headerBytesOf, protocolVersion, readPrefix } from "./frame.js";
import { FrameAssembler } from "./frame-assembler.js";
import { Heartbeat } from "./heartbeat.js";
import { Incoming } from "./incoming.js";
import { IncomingCalls } from "./incoming-calls.js";
import { type FrameLimits, wireLimits } from "./limits.js";
import { limit } from "./msgpack-reader.js";
import { Outbox } from "./outbox.js";
import type { CallOptions, CloseReason, Hello, Peer, PeerOptions } from "./peer-api.js";
import { PendingCalls } from "./pending-calls.js";
import { segmentOf } from "./value-frame.js";
import { ValueReader } from "./value-reader.js";
import type { ValueWriter } from "./value-writer.js";
import type { Wire, WireEvents } from "./wire.js";

/** Segments from this size on are handed out as views of their frame; shorter ones are copied so that they do not hold it. */
const viewBytesMin = 64 * 1024;

/** How far a connection has come; nothing leads back. */
type Phase =
  | { readonly kind: "greeting"; readonly opened: (peer: Peer) => void; readonly refused: (error: unknown) => void }
  | { readonly kind: "open" }
  /** No new calls; those in progress may end. */
  | { readonly kind: "draining"; readonly idle: () => void }
  | { readonly kind: "ended"; readonly reason: CloseReason };

/**
 * One end of a connection. Invariants:
 * R1 messages of one side arrive in the order they were made; calls start in that order;
 * R2 a turn's messages leave as one frame (a turn above 4 MiB as several);
 * R3 every pending call settles when the connection ends; R4 a refused value costs its own call, a broken frame the connection;
 * R5 nothing is answered before both hellos agree.
 */
export class PeerEnd implements Peer, MessageSink, WireEvents {
  #phase: Phase;
  #remote: Hello | undefined;
  #remoteEpoch = 0;
  #flushing = false;
  #lastCallId = 0;
  #helloTimer: Timer | undefined;
  #heartbeat: Heartbeat | undefined;
  readonly #wire: Wire;
  readonly #options: PeerOptions;
  readonly #accept: ((hello: Hello) => void) | undefined;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #limits: FrameLimits;
  readonly #callsMax: number;
  readonly #callTimeoutMs: number | null;
  readonly #outbox: Outbox;
  readonly #frames: FrameAssembler;
  readonly #pending: PendingCalls;
  readonly #incoming: IncomingCalls;
  readonly #endOfTurn: (flush: () => void) => void;
  readonly #flush = () => {
    this.#flushing = false;
    if (this.#phase.kind !== "ended") this.#outbox.flush();
  };
  #resolveClosed: (reason: CloseReason) => void = () => undefined;
  readonly closed: Promise<CloseReason>;

  constructor(wire: Wire, options: PeerOptions, phase: Phase, accept?: (hello: Hello) => void) {
    this.#wire = wire;
    this.#options = options;
    this.#phase = phase;
    this.#accept = accept;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLogger;
    this.#limits = { ...wireLimits, ...options.limits };
    this.#callsMax = options.pendingCallsMax ?? 65_536;
    this.#callTimeoutMs = options.callTimeoutMs === undefined ? 60_000 : options.callTimeoutMs;
    this.#endOfTurn = options.endOfTurn ?? endOfTurn;
    this.#outbox = new Outbox({
      wire,
      limits: this.#limits,
      bytesMax: options.outgoingBytesMax ?? 64 * 1024 * 1024,
      epoch: options.epoch ?? (() => 0),
      hooks: options.hooks,
    });
    this.#frames = new FrameAssembler(this.#limits, (buffer, start, total, owned) => this.#frame(buffer, start, total, owned));
    this.#pending = new PendingCalls({
      clock: this.#clock,
      peer: wire.name,
      cancel: (callId) => this.#post((out) => writeCancel(out, callId)),
    });
    this.#incoming = new IncomingCalls(this.#clock);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  /** Connects to the wire; `greet` for the side that speaks first. */
  begin(greet: boolean): void {
    const helloTimeoutMs = this.#options.helloTimeoutMs ?? 5_000;
    this.#helloTimer = this.#clock.after(helloTimeoutMs, () =>
      this.#end({ kind: "broken", reason: `no hello within ${helloTimeoutMs} ms` }),
    );
    this.#wire.start(this);
    if (greet) this.#post((out) => writeHello(out, this.#options.hello));
  }

  get remote(): Hello {
    if (this.#remote === undefined)
      throw new SlimeError("wire.broken", `${this.#wire.name} has not said hello`, { peer: this.#wire.name, reason: "no hello" });
    return this.#remote;
  }

  get remoteEpoch(): number {
    return this.#remoteEpoch;
  }

  get ended(): boolean {
    return this.#phase.kind === "ended";
  }

  call(method: string, args: unknown, options?: CallOptions): Promise<unknown> {
    const signal = options?.signal;
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    const timeoutMs = options?.timeoutMs === undefined ? this.#callTimeoutMs : options.timeoutMs;
    const callId = this.#lastCallId + 1;
    const head: CallHead = {
      deadlineMs: timeoutMs,
      traceId: options?.traceId ?? null,
      idempotencyKey: options?.idempotencyKey ?? null,
      urgent: options?.urgent ?? false,
    };
    try {
      this.#admit(method);
      if (this.#pending.size >= this.#callsMax)
        throw limit(`calls in flight to ${this.#wire.name}`, this.#pending.size + 1, this.#callsMax);
      this.#outbox.add((out) => writeCall(out, callId, method, args, head), false);
    } catch (error) {
      return Promise.reject(error as Error);
    }
    this.#lastCallId = callId;
    this.#schedule();
    return this.#pending.add(callId, method, timeoutMs, signal);
  }

  send(method: string, args: unknown, options?: Pick<CallOptions, "traceId" | "urgent">): void {
    this.#admit(method);
    this.#outbox.add((out) => writeSend(out, method, args, options?.traceId ?? null, options?.urgent ?? false), false);
    this.#schedule();
  }

  async close(options?: { readonly drainMs?: number; readonly reason?: string }): Promise<void> {
    const drainMs = options?.drainMs ?? 0;
    if (this.#phase.kind === "open" && drainMs > 0 && !this.#isIdle()) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.after(drainMs, resolve);
        this.#phase = {
          kind: "draining",
          idle: () => {
            timer.cancel();
            resolve();
          },
        };
      });
    }
    if (this.#phase.kind === "ended") return;
    const reason = options?.reason ?? "closed";
    this.#post((out) => writeGoodbye(out, reason, null));
    this.#end({ kind: "closed", reason });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  onData(chunk: Buffer): void {
    this.#heartbeat?.heard();
    if (this.#phase.kind === "ended") return;
    try {
      this.#frames.push(chunk);
    } catch (error) {
      this.#fault(error);
    }
  }

  onDrain(): void {
    this.#flush();
  }

  onEnd(reason: string | null): void {
    this.#end({ kind: "broken", reason: reason ?? "the other side went away" });
  }

  onHello(hello: Hello): void {
    const phase = this.#phase;
    if (phase.kind !== "greeting") return;
    const ours = this.#options.hello;
    try {
      if (hello.clusterId !== ours.clusterId)
        throw new SlimeError(
          "peer.incompatible",
          `${this.#wire.name} belongs to cluster ${hello.clusterId}, this process to ${ours.clusterId}`,
          { ours: ours.clusterId, theirs: hello.clusterId },
        );
      this.#accept?.(hello);
    } catch (error) {
      return this.#refuse(error);
    }
    this.#remote = hello;
    this.#phase = { kind: "open" };
    this.#helloTimer?.cancel();
    if (this.#accept !== undefined) this.#post((out) => writeHello(out, ours));
    const heartbeat = this.#options.heartbeat === undefined ? { pingMs: 5_000, silenceMsMax: 15_000 } : this.#options.heartbeat;
    if (heartbeat !== null) {
      const ping = () => this.#post((out) => writeBare(out, messageType.ping));
      const hung = (silentMs: number) => this.#end({ kind: "broken", reason: `silent for ${Math.round(silentMs)} ms` });
      this.#heartbeat = new Heartbeat({ ...heartbeat, clock: this.#clock, ping, hung });
    }
    phase.opened(this);
  }

  onCall(callId: number, method: string, args: unknown, head: CallHead, bad: unknown): void {
    if (this.#phase.kind === "greeting")
      return this.#fault(
        new SlimeError("codec.refused", `${this.#wire.name} called before its hello`, { where: method, reason: "no hello" }),
      );
    if (this.#phase.kind !== "open")
      return this.#fail(
        callId,
        method,
        new SlimeError("wire.broken", `${method}: the callee is ending and takes no more calls`, {
          peer: this.#options.hello.who.id,
          reason: "draining",
        }),
      );
    if (bad !== undefined) return this.#fail(callId, method, bad);
    if (this.#incoming.size >= this.#callsMax)
      return this.#fail(callId, method, limit("calls in progress for one caller", this.#incoming.size + 1, this.#callsMax));
    const call = new Incoming(this, callId, method, args, head, true, head.deadlineMs === null ? 0 : this.#clock.nowMs());
    let result: unknown;
    try {
      result = this.#handle(call);
    } catch (error) {
      return this.#fail(callId, method, error);
    }
    if (!isPromise(result)) return this.#reply(call, result);
    this.#incoming.add(call);
    result.then(
      (value) => this.#finish(call, value, undefined, true),
      (error: unknown) => this.#finish(call, undefined, error, false),
    );
  }

  onSend(method: string, args: unknown, head: CallHead, bad: unknown): void {
    if (this.#phase.kind !== "open") return;
    const lost = (error: unknown) => this.#log.warn("rpc.send_failed", { method, peer: this.#wire.name, error: toFailure(error) });
    if (bad !== undefined) return lost(bad);
    try {
      const result = this.#handle(new Incoming(this, 0, method, args, head, false, 0));
      if (isPromise(result)) result.then(undefined, lost);
    } catch (error) {
      lost(error);
    }
  }

  onResult(callId: number, value: unknown, bad: unknown): void {
    if (bad === undefined) this.#pending.resolve(callId, value);
    else this.#pending.reject(callId, bad);
    this.#noticeIdle();
  }

  onFailure(callId: number, failure: Failure): void {
    this.#pending.reject(callId, fromFailure(failure));
    this.#noticeIdle();
  }

  onCancel(callId: number): void {
    this.#incoming.cancel(callId);
  }

  onPing(): void {
    this.#post((out) => writeBare(out, messageType.pong));
  }

  onGoodbye(reason: string, failure: Failure | null): void {
    if (this.#phase.kind === "greeting" && failure !== null) this.#phase.refused(fromFailure(failure));
    this.#end({ kind: "closed", reason });
  }

  #handle(call: Incoming): unknown {
    const { handler } = this.#options;
    if (handler === undefined)
      throw new SlimeError("not_found", `${call.method}: this process answers no calls`, { kind: "method", id: call.method });
    return handler(call);
  }

  #reply(call: Incoming, value: unknown): void {
    if (this.#phase.kind === "ended") return;
    try {
      this.#outbox.add((out) => writeResult(out, call.callId, value), false);
    } catch (error) {
      return this.#fail(call.callId, call.method, error);
    }
    this.#schedule();
  }

  #fail(callId: number, method: string, error: unknown): void {
    const { who } = this.#options.hello;
    const failure = toFailure(error, `${who.id}#${who.incarnation}/pid ${who.pid}`, method);
    try {
      this.#post((out) => writeFailure(out, callId, failure));
    } catch {
      // Details past the limits: the caller gets the rest.
      this.#post((out) => writeFailure(out, callId, { ...failure, details: null, cause: null }));
    }
  }

  #finish(call: Incoming, value: unknown, error: unknown, fine: boolean): void {
    this.#incoming.remove(call);
    if (this.#phase.kind === "ended") return;
    if (!call.aborted) {
      if (fine) this.#reply(call, value);
      else this.#fail(call.callId, call.method, error);
    }
    this.#noticeIdle();
  }

  /** A message the protocol needs: never refused for size. */
  #post(write: (out: ValueWriter) => void): void {
    if (this.#phase.kind === "ended") return;
    this.#outbox.add(write, true);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    this.#endOfTurn(this.#flush);
  }

  #admit(method: string): void {
    const phase = this.#phase;
    if (phase.kind === "open") return;
    const reason =
      phase.kind === "ended" ? phase.reason.reason : phase.kind === "draining" ? "it is being closed" : "it has not said hello yet";
    throw new SlimeError("wire.broken", `${method}: the connection to ${this.#wire.name} takes no calls: ${reason}`, {
      peer: this.#wire.name,
      reason,
    });
  }

  #frame(buffer: Buffer, start: number, total: number, owned: boolean): boolean {
    const headerBytes = headerBytesOf(buffer, start, total);
    let table: readonly number[] = [];
    const reader: ValueReader = new ValueReader(
      buffer,
      start + 8,
      start + 8 + headerBytes,
      (index: number): Uint8Array => segmentOf(buffer, start, table, index, owned ? viewBytesMin : Infinity, reader),
      this.#options.hooks,
      this.#limits,
    );
    const prefix = readPrefix(reader, headerBytes, total, this.#limits);
    table = prefix.segments;
    if (prefix.epoch > this.#remoteEpoch) {
      this.#remoteEpoch = prefix.epoch;
      this.#options.onEpoch?.(prefix.epoch);
    }
    for (let i = 0; i < prefix.messages; i++) {
      readMessage(reader, this);
      if (this.ended) return false;
    }
    if (!reader.atEnd) throw reader.refused("bytes follow the last message");
    return true;
  }

  #isIdle(): boolean {
    return this.#pending.size === 0 && this.#incoming.size === 0;
  }

  #noticeIdle(): void {
    if (this.#phase.kind === "draining" && this.#isIdle()) this.#phase.idle();
  }

  /** The other side broke the protocol. */
  #fault(error: unknown): void {
    if (this.#phase.kind === "greeting") return this.#refuse(error);
    this.#log.error("rpc.fault", { peer: this.#wire.name, protocolVersion, failure: toFailure(error) });
    this.#end({ kind: "broken", reason: error instanceof Error ? error.message : String(error) });
  }

  #refuse(error: unknown): void {
    if (this.#phase.kind === "greeting") this.#phase.refused(error);
    const reason = error instanceof Error ? error.message : String(error);
    this.#post((out) => writeGoodbye(out, reason, toFailure(error)));
    this.#end({ kind: "closed", reason });
  }

  /** The only way into `ended` (R3). */
  #end(reason: CloseReason): void {
    const phase = this.#phase;
    if (phase.kind === "ended") return;
    if (reason.kind === "closed") this.#outbox.flush();
    this.#phase = { kind: "ended", reason };
    this.#helloTimer?.cancel();
    this.#heartbeat?.stop();
    if (reason.kind === "closed") this.#wire.end();
    else this.#wire.destroy();
    if (phase.kind === "greeting")
      phase.refused(
        new SlimeError("wire.broken", `${this.#wire.name}: ${reason.reason}`, { peer: this.#wire.name, reason: reason.reason }),
      );
    if (phase.kind === "draining") phase.idle();
    this.#incoming.abortAll(reason.reason);
    this.#pending.breakAll(reason.reason);
    this.#resolveClosed(reason);
  }
}

/** Makes a peer of a wire and resolves when both sides have said hello. @param accept given by the side that answers. */
export function openPeer(wire: Wire, options: PeerOptions, accept?: (hello: Hello) => void): Promise<Peer> {
  return new Promise((opened, refused) => {
    new PeerEnd(wire, options, { kind: "greeting", opened, refused }, accept).begin(accept === undefined);
  });
}

/** After everything that the current callback and its promises do. `setImmediate` would also wait for the poll phase: half the round trips. */
function endOfTurn(flush: () => void): void {
  queueMicrotask(() => process.nextTick(flush));
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return value instanceof Promise || (typeof value === "object" && value !== null && "then" in value && typeof value.then === "function");
}
