import { type Clock, SlimeError } from "@slime/core";
import { DeadlineWatch } from "./deadline-watch.js";

/** A call of ours that waits for its result. */
interface Pending {
  readonly method: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly deadlineAtMs: number;
  readonly timeoutMs: number | null;
  readonly signal: AbortSignal | undefined;
  readonly onAbort: (() => void) | undefined;
}

/**
 * Calls that wait for a result, by id. Invariants: P1 each settles exactly once: by its result, its failure, its deadline,
 * its signal or the end of the connection; P2 a result for an id that is gone is dropped.
 */
export class PendingCalls {
  readonly #clock: Clock;
  readonly #calls = new Map<number, Pending>();
  readonly #watch: DeadlineWatch;
  /** Tells the other side that a result is no longer wanted. */
  readonly #cancel: (callId: number) => void;
  readonly #peer: string;

  constructor(options: { readonly clock: Clock; readonly peer: string; readonly cancel: (callId: number) => void }) {
    this.#clock = options.clock;
    this.#peer = options.peer;
    this.#cancel = options.cancel;
    this.#watch = new DeadlineWatch(options.clock, (nowMs) => this.#sweep(nowMs));
  }

  get size(): number {
    return this.#calls.size;
  }

  add(callId: number, method: string, timeoutMs: number | null, signal: AbortSignal | undefined): Promise<unknown> {
    const deadlineAtMs = timeoutMs === null ? Infinity : this.#clock.nowMs() + timeoutMs;
    const promise = new Promise<unknown>((resolve, reject) => {
      const onAbort = signal === undefined ? undefined : () => this.#drop(callId, signal.reason);
      this.#calls.set(callId, { method, resolve, reject, deadlineAtMs, timeoutMs, signal, onAbort });
      if (onAbort !== undefined) signal?.addEventListener("abort", onAbort, { once: true });
    });
    if (timeoutMs !== null) this.#watch.watch(deadlineAtMs);
    return promise;
  }

  resolve(callId: number, value: unknown): void {
    this.#take(callId)?.resolve(value);
  }

  reject(callId: number, error: unknown): void {
    this.#take(callId)?.reject(error);
  }

  /** The end of the connection: all fail, and may be tried again elsewhere. */
  breakAll(reason: string): void {
    this.#watch.stop();
    for (const callId of [...this.#calls.keys()]) {
      const pending = this.#take(callId);
      pending?.reject(
        new SlimeError("wire.broken", `${pending.method}: the connection to ${this.#peer} ended: ${reason}`, { peer: this.#peer, reason }),
      );
    }
  }

  #take(callId: number): Pending | undefined {
    const pending = this.#calls.get(callId);
    if (pending === undefined) return undefined;
    this.#calls.delete(callId);
    if (pending.onAbort !== undefined) pending.signal?.removeEventListener("abort", pending.onAbort);
    return pending;
  }

  #drop(callId: number, reason: unknown): void {
    const pending = this.#take(callId);
    if (pending === undefined) return;
    this.#cancel(callId);
    pending.reject(reason);
  }

  #sweep(nowMs: number): number {
    let next = Infinity;
    for (const [callId, pending] of this.#calls) {
      if (pending.deadlineAtMs > nowMs) next = Math.min(next, pending.deadlineAtMs);
      else {
        const what = `${pending.method} on ${this.#peer}`;
        this.#drop(
          callId,
          new SlimeError("call.deadline", `${what} did not finish within ${pending.timeoutMs} ms`, {
            what,
            timeoutMs: pending.timeoutMs ?? 0,
          }),
        );
      }
    }
    return next;
  }
}
