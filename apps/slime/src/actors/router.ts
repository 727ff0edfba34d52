import type { RouterPolicy } from "@slime/backend";
import { systemClock, systemRandom } from "@slime/core";
import { startRouter } from "@slime/router";
import { ctx, defineActors } from "@slime/runtime";

/** Our own router, in the actor's process. */
export interface RouterSpec {
  readonly kind: "slime";
  readonly policy: RouterPolicy;
  /** 0: any that is free; a given one is taken again by the next life. */
  readonly port: number;
}

interface RouterProcess {
  readonly url: string;
  readonly close: () => Promise<void>;
}

/** The HTTP front of the engines in a process of its own. It is driven over HTTP and keeps nothing: after a restart the run adds the engines again. */
export class Router {
  readonly #spec: RouterSpec;
  #router: Promise<RouterProcess> | null = null;

  constructor(spec: RouterSpec) {
    this.#spec = spec;
  }

  /** Where it listens. */
  async start(): Promise<{ readonly url: string }> {
    this.#router ??= this.#launch().catch((error: unknown) => {
      this.#router = null;
      throw error;
    });
    const { url } = await this.#router;
    ctx().phase("routing");
    return { url };
  }

  async onShutdown(): Promise<void> {
    const router = await this.#router?.catch(() => null);
    await router?.close();
  }

  async #launch(): Promise<RouterProcess> {
    const { policy, port } = this.#spec;
    return startRouter({ policy, port, clock: systemClock, random: systemRandom });
  }
}
defineActors(import.meta.url, { Router });
