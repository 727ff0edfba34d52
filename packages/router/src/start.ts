import type { RouterPolicy } from "@slime/backend";
import { type Clock, type Logger, type Random, silentLogger, systemClock, systemRandom } from "@slime/core";
import { Dispatcher } from "./dispatcher.js";
import { serveRouter } from "./front.js";
import { defaultRouterLimits, type RouterLimits } from "./options.js";
import { type CacheAwareOptions, defaultCacheAware } from "./policies/cache-aware.js";
import { startProber } from "./prober.js";
import { socketTransport } from "./socket-transport.js";
import type { Transport } from "./transport.js";

export interface RouterOptions {
  readonly policy?: RouterPolicy;
  /** Thresholds of the policy cache_aware. */
  readonly cache?: Partial<CacheAwareOptions>;
  /** Loopback only. */
  readonly host?: string;
  /** 0: any free port. */
  readonly port?: number;
  readonly limits?: Partial<RouterLimits>;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Logger;
  /** How bytes reach engines; sockets unless given. */
  readonly transport?: Transport;
}

export interface RunningRouter extends AsyncDisposable {
  readonly url: string;
  readonly dispatcher: Dispatcher;
  /** Lets replies under way go out for a moment, then cuts. Idempotent. */
  readonly close: () => Promise<void>;
}

/** Starts the router in this process; `httpRouter(url)` drives it as a run does. @throws `address.refused`, `port.taken`. */
export async function startRouter(options: RouterOptions = {}): Promise<RunningRouter> {
  const limits = { ...defaultRouterLimits, ...options.limits };
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const log = options.log ?? silentLogger;
  const transport = options.transport ?? socketTransport({ connectTimeoutMs: limits.connectTimeoutMs, clock });
  const cache = { ...defaultCacheAware, ...options.cache };
  const dispatcher = new Dispatcher(options.policy ?? "least_in_flight", transport, limits, { clock, random, log, cache });
  const front = await serveRouter(
    { dispatcher, transport, limits, clock, random, log },
    { host: options.host ?? "127.0.0.1", port: options.port ?? 0 },
  );
  const prober = startProber(dispatcher, clock, limits.probeEveryMs);
  let closing: Promise<void> | undefined;
  const close = () => {
    prober.close();
    return (closing ??= front.close().then(() => transport.close()));
  };
  return { url: front.url, dispatcher, close, [Symbol.asyncDispose]: close };
}
