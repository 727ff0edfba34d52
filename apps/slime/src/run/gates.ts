import type { Fence, Router } from "@slime/backend";

export interface GatesParts {
  /** The router of the moment. */
  readonly router: () => Promise<Router>;
  /** Told the oldest version that may answer from now on, before the engine that makes it so opens. */
  readonly onFloor: (version: number) => void;
}

/**
 * The engines' fences: what the loop wants of each, and what holds while an engine is held back because it may hang.
 * F5: `floor` is the oldest version among the open engines. A request sent at floor f whose reply names version f saw no other weights.
 */
export class Gates implements Fence {
  readonly #parts: GatesParts;
  /** Version by url of the engines that the loop wants open. */
  readonly #wanted = new Map<string, number>();
  readonly #held = new Set<string>();
  #floor = 0;

  constructor(parts: GatesParts) {
    this.#parts = parts;
  }

  get floor(): number {
    return this.#floor;
  }

  readonly close = async (url: string): Promise<void> => {
    this.#wanted.delete(url);
    await (await this.#parts.router()).fence(url);
  };

  /** An engine that has just taken weights and answered the canary does not hang: it opens even where it was held. */
  readonly open = async (url: string, version: number): Promise<void> => {
    this.#wanted.set(url, version);
    this.#held.delete(url);
    this.#raiseFloor();
    await (await this.#parts.router()).open(url, version);
  };

  /** F4. */
  async hold(url: string): Promise<void> {
    if (!this.#wanted.has(url) || this.#held.has(url)) return;
    this.#held.add(url);
    await (await this.#parts.router()).fence(url);
  }

  async release(url: string): Promise<void> {
    const version = this.#wanted.get(url);
    if (!this.#held.delete(url) || version === undefined) return;
    await (await this.#parts.router()).open(url, version);
  }

  /** The engine is gone. */
  forget(url: string): void {
    this.#wanted.delete(url);
    this.#held.delete(url);
  }

  #raiseFloor(): void {
    const floor = Math.min(...this.#wanted.values());
    if (floor <= this.#floor) return;
    this.#floor = floor;
    this.#parts.onFloor(floor);
  }
}
