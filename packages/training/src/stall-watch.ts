import { type Clock, SlimeError, type Timer } from "@slime/core";

/** Notices when nothing moves any more, and says what was waited for (S3). */
export class StallWatch {
  readonly #clock: Clock;
  readonly #stallMs: number;
  readonly #doing = new Map<string, number>();
  #progressMs: number;
  #timer: Timer | null = null;

  constructor(clock: Clock, stallMs: number) {
    this.#clock = clock;
    this.#stallMs = stallMs;
    this.#progressMs = clock.nowMs();
  }

  /** Looks four times per `stallMs` until `stop`; calls back once. */
  start(onStall: (error: SlimeError<"stalled">) => void): void {
    this.#timer = this.#clock.after(this.#stallMs / 4, () => {
      const silentMs = this.#clock.nowMs() - this.#progressMs;
      if (silentMs < this.#stallMs) this.start(onStall);
      else onStall(this.#error(silentMs));
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  progressed(): void {
    this.#progressMs = this.#clock.nowMs();
  }

  began(what: string): void {
    this.#doing.set(what, this.#clock.nowMs());
  }

  ended(what: string): void {
    this.#doing.delete(what);
  }

  #error(silentMs: number): SlimeError<"stalled"> {
    const seconds = (ms: number) => `${Math.round(ms / 1_000)} s`;
    const doing = [...this.#doing].map(([what, since]) => `${what} (${seconds(this.#clock.nowMs() - since)})`);
    const what = doing.length > 0 ? doing.join(", ") : "nothing at all";
    return new SlimeError(
      "stalled",
      `no progress for ${seconds(silentMs)} while ${what}: see the logs of who it waits for; the same command resumes the run (--stall-timeout sets this limit)`,
      { what, silentMs },
    );
  }
}
