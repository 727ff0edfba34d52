import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { RouterPolicy } from "@slime/backend";
import { SlimeError, systemClock, systemRandom } from "@slime/core";
import { startRouter } from "@slime/router";
import { ctx, defineActors, lineLogger } from "@slime/runtime";
import { type RouterRequest, routerArgTable, startSglangRouter } from "@slime/sglang";

/** Our own router, in the actor's process. */
export interface SlimeRouterSpec {
  readonly kind: "slime";
  readonly policy: RouterPolicy;
  /** 0: any that is free. */
  readonly port: number;
  readonly balance: { readonly absolute: number; readonly relative: number };
}

/** The real one, as a process that the actor owns. */
export interface SglangRouterSpec extends Omit<RouterRequest, "host" | "port" | "metricsPort"> {
  readonly kind: "sglang_router";
  readonly python: string;
  readonly env: Readonly<Record<string, string>>;
  /** 0: any that is free. */
  readonly port: number;
  /** Gets `router.log`. */
  readonly directory: string;
}

export type RouterSpec = SlimeRouterSpec | SglangRouterSpec;

export interface RouterStarted {
  readonly url: string;
  /** Null: its metrics are at its own url. */
  readonly metricsUrl: string | null;
}

interface RouterProcess extends RouterStarted {
  /** Resolves with the reason when it is over; never for one that lives in this process. */
  readonly over: Promise<string>;
  readonly close: () => Promise<void>;
}

/** Only this machine reaches a router: there is no TLS and no token in front of it yet. */
const host = "127.0.0.1";
/** Exit code of a life that ended itself so that its restart policy gives it the next: what it owned is unavailable. */
const nextLife = 69;
const log = lineLogger(systemClock, (line) => process.stderr.write(line));

/**
 * The HTTP front of the engines in a process of its own. It is driven over HTTP and keeps nothing: after a restart the run adds the engines
 * again. A router process that ends takes its actor with it.
 */
export class Router {
  readonly #spec: RouterSpec;
  #router: Promise<RouterProcess> | null = null;

  constructor(spec: RouterSpec) {
    this.#spec = spec;
  }

  /** Where it listens. Asked again in the same life it answers alike, or tries again where it failed. */
  async start(): Promise<RouterStarted> {
    this.#router ??= this.#launch().catch((error: unknown) => {
      this.#router = null;
      throw error;
    });
    const { url, metricsUrl } = await this.#router;
    return { url, metricsUrl };
  }

  async onShutdown(): Promise<void> {
    const router = await this.#router?.catch(() => null);
    await router?.close();
  }

  async #launch(): Promise<RouterProcess> {
    const { phase, leasePorts, signal } = ctx();
    phase("starting");
    const router = this.#spec.kind === "slime" ? await ours(this.#spec) : await theirs(this.#spec, { leasePorts, signal });
    void router.over.then((reason) => {
      if (signal.aborted) return;
      process.stderr.write(`router ends itself: ${reason}\n`);
      process.exit(nextLife);
    });
    phase("routing");
    return router;
  }
}
defineActors(import.meta.url, { Router });

async function ours({ policy, port, balance }: SlimeRouterSpec): Promise<RouterProcess> {
  const cache = { balanceAbsolute: balance.absolute, balanceRelative: balance.relative };
  const { url, close } = await startRouter({ policy, port, cache, clock: systemClock, random: systemRandom, log });
  return { url, metricsUrl: null, over: new Promise(() => {}), close };
}

async function theirs(
  spec: SglangRouterSpec,
  { leasePorts, signal }: { readonly leasePorts: (count: number) => Promise<readonly number[]>; readonly signal: AbortSignal },
): Promise<RouterProcess> {
  const { python, env, directory, policy, pd, requestTimeoutSecs, passThrough } = spec;
  await mkdir(directory, { recursive: true });
  const table = await routerArgTable(python, { env: { ...process.env, ...env } });
  if (table === null) {
    const issue = `${python} has no sglang_router: install it there (pip install sglang-router), or take --router-backend slime`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  const [leased = 0, metricsPort = 0] = await leasePorts(2);
  const { url, metricsUrl, exited, kill } = await startSglangRouter(
    { python, env, host, port: spec.port === 0 ? leased : spec.port, metricsPort, policy, pd, requestTimeoutSecs, passThrough },
    { clock: systemClock, log, logFile: join(directory, "router.log"), table, signal, inherited: process.env },
  );
  return { url, metricsUrl, over: exited.then(({ reason }) => `sglang_router ended: ${reason}`), close: kill };
}
