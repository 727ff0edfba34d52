import type { Clock, Timer } from "@slime/core";

export interface HeartbeatOptions {
  readonly clock: Clock;
  /** After this silence the other side is asked. */
  readonly pingMs: number;
  /** After this silence it counts as hung. */
  readonly silenceMsMax: number;
  readonly ping: () => void;
  readonly hung: (silentMs: number) => void;
}

/** Notices that the other side has stopped talking. Ends by itself when it calls `hung`. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #lastHeardMs: number;
  #timer: Timer | undefined;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#lastHeardMs = options.clock.nowMs();
    this.#arm();
  }

  /** Anything came in. */
  heard(): void {
    this.#lastHeardMs = this.#options.clock.nowMs();
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #arm(): void {
    const { clock, pingMs, silenceMsMax, ping, hung } = this.#options;
    const dueMs = clock.nowMs() + pingMs;
    this.#timer = clock.after(pingMs, () => {
      const nowMs = clock.nowMs();
      // A late timer means that this process was held up; what the other side said meanwhile has not been read yet.
      if (nowMs - dueMs > pingMs) this.#lastHeardMs = Math.max(this.#lastHeardMs, nowMs - pingMs);
      const silentMs = nowMs - this.#lastHeardMs;
      if (silentMs >= silenceMsMax) return hung(silentMs);
      if (silentMs >= pingMs) ping();
      this.#arm();
    });
  }
}
