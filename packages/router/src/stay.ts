import type { Clock } from "@slime/core";
import type { Liveness } from "./liveness.js";
import type { Attempt, ReplySink } from "./transport.js";

/** A request at an engine: under way there, and counted. */
export interface Stay extends Attempt {
  /** Gives it up for no fault of the engine's. */
  readonly release: () => void;
}

/** Passes an answer on and notes that its engine lives. */
export class NotingSink implements ReplySink {
  readonly #sink: ReplySink;
  readonly #liveness: Liveness;
  readonly #clock: Clock;

  constructor(sink: ReplySink, liveness: Liveness, clock: Clock) {
    this.#sink = sink;
    this.#liveness = liveness;
    this.#clock = clock;
  }

  begin(status: number, headers: readonly string[], length: number | null): void {
    this.#liveness.progressed(this.#clock.nowMs());
    this.#sink.begin(status, headers, length);
  }

  data(chunk: Buffer, resume: () => void): boolean {
    this.#liveness.progressed(this.#clock.nowMs());
    return this.#sink.data(chunk, resume);
  }

  end(): void {
    this.#sink.end();
  }

  cut(reason: string): void {
    this.#sink.cut(reason);
  }
}
