import { type Clock, SlimeError } from "@slime/core";
import { DeadlineWatch } from "./deadline-watch.js";
import type { Incoming } from "./incoming.js";

/** The other side's calls that run here, by id. Each is aborted at its deadline, on its caller's wish, or when the connection ends. */
export class IncomingCalls {
  readonly #calls = new Map<number, Incoming>();
  readonly #watch: DeadlineWatch;

  constructor(clock: Clock) {
    this.#watch = new DeadlineWatch(clock, (nowMs) => this.#sweep(nowMs));
  }

  get size(): number {
    return this.#calls.size;
  }

  add(call: Incoming): void {
    this.#calls.set(call.callId, call);
    if (call.deadlineAtMs !== Infinity) this.#watch.watch(call.deadlineAtMs);
  }

  remove(call: Incoming): void {
    this.#calls.delete(call.callId);
  }

  cancel(callId: number): void {
    const call = this.#calls.get(callId);
    call?.abort(new SlimeError("call.cancelled", `${call.method} was cancelled by its caller`, { what: call.method }));
  }

  abortAll(reason: string): void {
    this.#watch.stop();
    for (const call of this.#calls.values())
      call.abort(new SlimeError("call.cancelled", `${call.method}: its caller's connection ended: ${reason}`, { what: call.method }));
    this.#calls.clear();
  }

  #sweep(nowMs: number): number {
    let next = Infinity;
    for (const call of this.#calls.values()) {
      if (call.deadlineAtMs > nowMs) next = Math.min(next, call.deadlineAtMs);
      else if (!call.aborted)
        call.abort(
          new SlimeError("call.deadline", `${call.method} did not finish within ${call.deadlineMs} ms`, {
            what: call.method,
            timeoutMs: call.deadlineMs ?? 0,
          }),
        );
    }
    return next;
  }
}
