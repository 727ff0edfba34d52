import { join } from "node:path";
import type { Router } from "@slime/backend";
import { systemClock } from "@slime/core";
import { engineModels, type RunConfig } from "@slime/rl-config";
import { httpRouter } from "@slime/router";
import { sglangRouter } from "@slime/sglang";
import { routerSettings } from "@slime/training";
import type { RouterSpec, RouterStarted } from "../actors/router.js";
import { sglangEnv } from "./server-settings.js";

/** The router that the run asks for. `directory`: for logs of a router that is a process of its own. */
export function routerSpec(config: RunConfig, directory: string): RouterSpec {
  const { policy, balance } = routerSettings(config);
  const port = config.sglangRouterPort;
  if (config.routerBackend === "slime") return { kind: "slime", policy, port, balance };
  const cacheAware = { balance_abs_threshold: balance.absolute, balance_rel_threshold: balance.relative };
  return {
    kind: "sglang_router",
    python: config.sglangPython,
    env: sglangEnv(config, { env: {} }),
    policy,
    port,
    pd: engineModels(config).some(({ groups }) => groups.some(({ workerType }) => workerType === "prefill")),
    requestTimeoutSecs: config.sglangRouterRequestTimeoutSecs,
    passThrough: { ...cacheAware, ...config.routerArgs },
    directory: join(directory, "router"),
  };
}

/** The client of a router that has started. */
export function routerClient({ kind }: Pick<RouterSpec, "kind">, { url, metricsUrl }: RouterStarted): Router {
  return kind === "slime" ? httpRouter(url) : sglangRouter(url, { clock: systemClock, metricsUrl });
}
