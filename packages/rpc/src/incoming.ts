import type { SlimeError } from "@slime/core";
import type { CallHead } from "./envelope.js";
import type { IncomingCall, Peer } from "./peer-api.js";

/** A call of the other side while it runs here. */
export class Incoming implements IncomingCall {
  readonly callId: number;
  readonly method: string;
  readonly args: unknown;
  readonly wantsReply: boolean;
  readonly peer: Peer;
  readonly #head: CallHead;
  /** By this process's clock; Infinity without a deadline. */
  readonly deadlineAtMs: number;
  #controller: AbortController | undefined;
  #aborted: SlimeError | undefined;

  constructor(peer: Peer, callId: number, method: string, args: unknown, head: CallHead, wantsReply: boolean, nowMs: number) {
    this.peer = peer;
    this.callId = callId;
    this.method = method;
    this.args = args;
    this.#head = head;
    this.wantsReply = wantsReply;
    this.deadlineAtMs = head.deadlineMs === null ? Infinity : nowMs + head.deadlineMs;
  }

  get deadlineMs(): number | null {
    return this.#head.deadlineMs;
  }

  get traceId(): string | null {
    return this.#head.traceId;
  }

  get idempotencyKey(): string | null {
    return this.#head.idempotencyKey;
  }

  get urgent(): boolean {
    return this.#head.urgent;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted);
    }
    return this.#controller.signal;
  }

  /** True once nobody waits for the result. */
  get aborted(): boolean {
    return this.#aborted !== undefined;
  }

  abort(reason: SlimeError): void {
    if (this.#aborted !== undefined) return;
    this.#aborted = reason;
    this.#controller?.abort(reason);
  }
}
