import type { RouterPolicy } from "@slime/backend";
import { systemClock, systemRandom } from "@slime/core";
import { type RunningRouter, startRouter } from "@slime/router";
import { ctx, defineActors } from "@slime/runtime";

/** Our HTTP router in a process of its own. It is driven over HTTP and keeps nothing: after a restart the run adds the engines again. */
export class Router {
  readonly #policy: RouterPolicy;
  #router: Promise<RunningRouter> | null = null;

  constructor(policy: RouterPolicy) {
    this.#policy = policy;
  }

  /** Where it listens. Every life of the actor has a port of its own. */
  async start(): Promise<{ readonly url: string }> {
    this.#router ??= startRouter({ policy: this.#policy, clock: systemClock, random: systemRandom });
    const { url } = await this.#router;
    ctx().phase("routing");
    return { url };
  }

  async onShutdown(): Promise<void> {
    await (await this.#router)?.close();
  }
}
defineActors(import.meta.url, { Router });
