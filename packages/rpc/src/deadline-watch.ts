import type { Clock, Timer } from "@slime/core";

/** Deadlines this close together share a timer. */
const coarseMs = 5;

/**
 * One timer for all deadlines of a connection. Most calls end long before theirs, so a timer each would be waste: this one is
 * set for the earliest and, when it fires, `sweep` looks at what is still there and says which comes next.
 * Invariant D1: `sweep` runs at or after each watched time, at most `coarseMs` late by the clock.
 */
export class DeadlineWatch {
  readonly #clock: Clock;
  /** Ends what is due by `nowMs`; returns the earliest time left, or Infinity. */
  readonly #sweep: (nowMs: number) => number;
  #timer: Timer | undefined;
  #atMs = Infinity;

  constructor(clock: Clock, sweep: (nowMs: number) => number) {
    this.#clock = clock;
    this.#sweep = sweep;
  }

  watch(atMs: number): void {
    if (atMs >= this.#atMs) return;
    this.#set(atMs, this.#clock.nowMs());
  }

  stop(): void {
    this.#timer?.cancel();
    this.#atMs = -Infinity;
  }

  #set(atMs: number, nowMs: number): void {
    this.#timer?.cancel();
    this.#atMs = atMs;
    this.#timer = this.#clock.after(Math.max(0, atMs - nowMs), () => this.#fire());
  }

  #fire(): void {
    const nowMs = this.#clock.nowMs();
    this.#atMs = Infinity;
    const next = this.#sweep(nowMs);
    if (next < this.#atMs) this.#set(Math.max(next, nowMs + coarseMs), nowMs);
  }
}
