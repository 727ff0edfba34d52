import type { Clock } from "@slime/core";
import type { Presence } from "./transport.js";

/** Where requests wait until an engine may take them. */
export class WaitingRoom {
  readonly #clock: Clock;
  readonly #waiting = new Set<() => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Something changed: everyone looks again. */
  wakeAll(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  /** Until something changed, the time is up or the client left. */
  turn(ms: number, client: Presence): Promise<void> {
    return this.#until(ms, client, (wake) => this.#waiting.add(wake));
  }

  /** Until the time is up or the client left. */
  pause(ms: number, client: Presence): Promise<void> {
    return this.#until(ms, client, () => {});
  }

  #until(ms: number, client: Presence, enter: (wake: () => void) => unknown): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiting.delete(wake);
        timer.cancel();
        client.watch(null);
        resolve();
      };
      const timer = this.#clock.after(ms, wake);
      enter(wake);
      client.watch(wake);
    });
  }
}
