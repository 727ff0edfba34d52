import type { RouterPolicy, RouterStats } from "@slime/backend";
import { systemClock, systemRandom } from "@slime/core";
import { ctx, defineActors } from "@slime/runtime";
import { type RunningRouter, startRouter } from "@slime/router";

export interface RouterOptions {
  readonly policy: RouterPolicy;
}

/** Our HTTP router in a process of its own. It keeps nothing: after a restart the run adds the engines again. */
export class Router {
  readonly #options: RouterOptions;
  #router: Promise<RunningRouter> | null = null;

  constructor(options: RouterOptions) {
    this.#options = options;
  }

  /** Where it listens. Every life of the actor has a port of its own. */
  async start(): Promise<{ readonly url: string }> {
    this.#router ??= startRouter({ policy: this.#options.policy, clock: systemClock, random: systemRandom });
    const { url } = await this.#router;
    ctx().phase("routing");
    return { url };
  }

  async add(url: string): Promise<void> {
    await (await this.#running()).add(url);
  }
  async remove(url: string): Promise<void> {
    await (await this.#running()).remove(url);
  }
  async fence(url: string): Promise<void> {
    await (await this.#running()).fence(url);
  }
  async open(url: string, version: number): Promise<void> {
    await (await this.#running()).open(url, version);
  }
  async stats(): Promise<RouterStats> {
    return (await this.#running()).stats();
  }

  async onShutdown(): Promise<void> {
    await (await this.#router)?.close();
  }

  async #running(): Promise<RunningRouter> {
    this.#router ??= startRouter({ policy: this.#options.policy, clock: systemClock, random: systemRandom });
    return this.#router;
  }
}
defineActors(import.meta.url, { Router });
