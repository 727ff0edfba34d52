import { type Clock, type Logger, SlimeError } from "@slime/core";
import { type CallHead, writeFailure, writeResult } from "./envelope.js";
import { toFailure } from "./failure.js";
import { Incoming } from "./incoming.js";
import { IncomingCalls } from "./incoming-calls.js";
import { limit } from "./msgpack-reader.js";
import type { Handler, Peer, Who } from "./peer-api.js";
import type { ValueWriter } from "./value-writer.js";

/** What the answering side needs of its connection. */
export interface CalleeOptions {
  readonly peer: Peer;
  readonly handler: Handler | undefined;
  /** This process, named in failures as where they happened. */
  readonly who: Who;
  /** The other side, for the log. */
  readonly caller: string;
  /** Calls in progress at most. */
  readonly callsMax: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Puts a message into this turn's frame, nothing once the connection has ended; `needed` ones are never refused for size. Throws what `write` throws. */
  readonly add: (write: (out: ValueWriter) => void, needed: boolean) => void;
  /** A call that was in progress has been answered. */
  readonly onFinished: () => void;
}

/**
 * The answering side of a connection: hands the other side's calls to the handler, at once and in their order, and sends what comes of them
 * unless nobody waits for it any more. Every call is answered once, by its result or a failure; what a `send` throws is logged.
 */
export class Callee {
  readonly #options: CalleeOptions;
  readonly #running: IncomingCalls;

  constructor(options: CalleeOptions) {
    this.#options = options;
    this.#running = new IncomingCalls(options.clock);
  }

  /** Calls in progress. */
  get size(): number {
    return this.#running.size;
  }

  call(callId: number, method: string, args: unknown, head: CallHead): void {
    const { peer, clock, callsMax } = this.#options;
    if (this.#running.size >= callsMax)
      return this.fail(callId, method, limit("calls in progress for one caller", this.#running.size + 1, callsMax));
    const call = new Incoming(peer, callId, method, args, head, true, head.deadlineMs === null ? 0 : clock.nowMs());
    let result: unknown;
    try {
      result = this.#handle(call);
    } catch (error) {
      return this.fail(callId, method, error);
    }
    if (!isPromise(result)) return this.#reply(call, result);
    this.#running.add(call);
    result.then(
      (value) => this.#finish(call, value, undefined, true),
      (error: unknown) => this.#finish(call, undefined, error, false),
    );
  }

  send(method: string, args: unknown, head: CallHead, bad: unknown): void {
    const { peer, log, caller } = this.#options;
    const lost = (error: unknown) => log.warn("rpc.send_failed", { method, peer: caller, error: toFailure(error) });
    if (bad !== undefined) return lost(bad);
    try {
      const result = this.#handle(new Incoming(peer, 0, method, args, head, false, 0));
      if (isPromise(result)) result.then(undefined, lost);
    } catch (error) {
      lost(error);
    }
  }

  /** Answers a call with a failure, whether or not it ever began. */
  fail(callId: number, method: string, error: unknown): void {
    const { who, add } = this.#options;
    const failure = toFailure(error, `${who.id}#${who.incarnation}/pid ${who.pid}`, method);
    try {
      add((out) => writeFailure(out, callId, failure), true);
    } catch {
      // Details past the limits: the caller gets the rest.
      add((out) => writeFailure(out, callId, { ...failure, details: null, cause: null }), true);
    }
  }

  cancel(callId: number): void {
    this.#running.cancel(callId);
  }

  /** The connection has ended: nobody waits for any of them. */
  abortAll(reason: string): void {
    this.#running.abortAll(reason);
  }

  #handle(call: Incoming): unknown {
    const { handler } = this.#options;
    if (handler === undefined)
      throw new SlimeError("not_found", `${call.method}: this process answers no calls`, { kind: "method", id: call.method });
    return handler(call);
  }

  #reply(call: Incoming, value: unknown): void {
    try {
      this.#options.add((out) => writeResult(out, call.callId, value), false);
    } catch (error) {
      this.fail(call.callId, call.method, error);
    }
  }

  #finish(call: Incoming, value: unknown, error: unknown, fine: boolean): void {
    this.#running.remove(call);
    if (!call.aborted) {
      if (fine) this.#reply(call, value);
      else this.fail(call.callId, call.method, error);
    }
    this.#options.onFinished();
  }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return value instanceof Promise || (typeof value === "object" && value !== null && "then" in value && typeof value.then === "function");
}
