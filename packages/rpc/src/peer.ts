import { type Clock, type Logger, SlimeError, silentLogger, systemClock, type Timer } from "@slime/core";
import { Callee } from "./callee.js";
import { type CallHead, messageType, writeBare, writeCall, writeCancel, writeGoodbye, writeHello, writeSend } from "./envelope.js";
import { type Failure, fromFailure, toFailure } from "./failure.js";
import { protocolVersion } from "./frame.js";
import { FrameAssembler } from "./frame-assembler.js";
import { type FrameSink, readFrame } from "./frame-messages.js";
import { Heartbeat } from "./heartbeat.js";
import { type FrameLimits, wireLimits } from "./limits.js";
import { limit } from "./msgpack-reader.js";
import { Outbox } from "./outbox.js";
import type { CallOptions, CloseReason, Hello, Peer, PeerOptions } from "./peer-api.js";
import { PendingCalls } from "./pending-calls.js";
import type { ValueWriter } from "./value-writer.js";
import type { Wire, WireEvents } from "./wire.js";

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
export class PeerEnd implements Peer, FrameSink, WireEvents {
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
  readonly #callee: Callee;
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
    this.#frames = new FrameAssembler(this.#limits, (buffer, start, total, owned) =>
      readFrame(buffer, start, total, owned, options.hooks, this.#limits, this),
    );
    this.#pending = new PendingCalls({
      clock: this.#clock,
      peer: wire.name,
      cancel: (callId) => this.#post((out) => writeCancel(out, callId)),
    });
    this.#callee = new Callee({
      peer: this,
      handler: options.handler,
      who: options.hello.who,
      caller: wire.name,
      callsMax: this.#callsMax,
      clock: this.#clock,
      log: this.#log,
      add: (write, needed) => this.#add(write, needed),
      onFinished: () => this.#noticeIdle(),
    });
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

  onFrame(epoch: number): void {
    if (epoch <= this.#remoteEpoch) return;
    this.#remoteEpoch = epoch;
    this.#options.onEpoch?.(epoch);
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
      return this.#callee.fail(
        callId,
        method,
        new SlimeError("wire.broken", `${method}: the callee is ending and takes no more calls`, {
          peer: this.#options.hello.who.id,
          reason: "draining",
        }),
      );
    if (bad !== undefined) return this.#callee.fail(callId, method, bad);
    this.#callee.call(callId, method, args, head);
  }

  onSend(method: string, args: unknown, head: CallHead, bad: unknown): void {
    if (this.#phase.kind === "open") this.#callee.send(method, args, head, bad);
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
    this.#callee.cancel(callId);
  }

  onPing(): void {
    this.#post((out) => writeBare(out, messageType.pong));
  }

  onGoodbye(reason: string, failure: Failure | null): void {
    if (this.#phase.kind === "greeting" && failure !== null) this.#phase.refused(fromFailure(failure));
    this.#end({ kind: "closed", reason });
  }

  /** A message the protocol needs: never refused for size. */
  #post(write: (out: ValueWriter) => void): void {
    this.#add(write, true);
  }

  #add(write: (out: ValueWriter) => void, needed: boolean): void {
    if (this.#phase.kind === "ended") return;
    this.#outbox.add(write, needed);
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

  #isIdle(): boolean {
    return this.#pending.size === 0 && this.#callee.size === 0;
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
    this.#callee.abortAll(reason.reason);
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
