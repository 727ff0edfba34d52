import type { RouterPolicy } from "@slime/backend";
import { SlimeError } from "@slime/core";
import type { ArgTable } from "./server-arg-fields.js";
import type { ServerArgs, ServerArgValue } from "./server-command.js";

/** Everything that decides one sglang_router process. */
export interface RouterRequest {
  readonly host: string;
  readonly port: number;
  /** Of its Prometheus metrics, which it serves on a port of their own. */
  readonly metricsPort: number;
  readonly policy: RouterPolicy;
  /** Engines are split into prefill and decode. */
  readonly pd: boolean;
  readonly requestTimeoutSecs: number;
  /** `--router-*`, without the prefix, in snake_case: stronger than our choices. */
  readonly passThrough: ServerArgs;
}

/** Within it the router gives up registering an engine; then it can not appear later, behind the back of whoever gave up too. */
export const registerSecsMax = 30;

/** What nobody sets, since something else has decided it. */
const owned: Readonly<Record<string, string>> = {
  host: "the router listens where the run says",
  port: "--sglang-router-port says it",
  policy: "--router-policy says it",
  worker_urls: "engines are registered when they are ready",
  prefill_urls: "engines are registered when they are ready",
  decode_urls: "engines are registered when they are ready",
  pd_disaggregation: "it follows from the engines' roles",
  prometheus_host: "the router listens where the run says",
  prometheus_port: "ports are leased from the node",
  request_timeout_secs: "--sglang-router-request-timeout-secs says it",
  service_discovery: "engines are registered by the run",
  mini_lb: "it is a debugging aid of another program",
  worker_startup_timeout_secs: "a registration has to be over when the run gives it up",
};

/**
 * Our choices. The breaker stays on and the health check off: a dead engine leaves the rotation after ten failures, each tried
 * elsewhere first, where upstream's choice (both off) keeps it in for ever; and pauses look like sickness to its health check, which
 * costs a token each time. Who is well is our health watch's to say: it removes the engine.
 */
const choices: ServerArgs = {
  balance_abs_threshold: 10,
  balance_rel_threshold: 1.2,
  log_level: "warn",
  disable_circuit_breaker: false,
  disable_health_check: true,
  worker_startup_check_interval: 1,
};

/** Nobody listens there. The router refuses to start power_of_two with fewer than two workers named; these are given up unseen. */
const nobody = ["http://127.0.0.1:1", "http://127.0.0.1:2"];

/**
 * The settings of an sglang_router, as its `RouterArgs` takes them. Pure.
 * @throws SlimeError `config.invalid` with every issue at once.
 */
export function routerArgs(
  request: RouterRequest,
  options: { readonly table: ArgTable | null; readonly suggest?: (wrong: string, known: readonly string[]) => readonly string[] },
): Readonly<Record<string, Exclude<ServerArgValue, null>>> {
  const { table, suggest = () => [] } = options;
  const issues: string[] = [];
  if (request.policy === "least_in_flight")
    issues.push("--router-policy least_in_flight is of slime's own router: use --router-backend slime, or power_of_two, its nearest kin");
  const given: Record<string, ServerArgValue> = {};
  for (const [name, value] of Object.entries(request.passThrough)) {
    const flag = `--router-${name.replaceAll("_", "-")}`;
    if (Object.hasOwn(owned, name)) issues.push(`${flag} is not yours to give: ${owned[name]}`);
    else if (table !== null && !table.has(name)) {
      const near = suggest(
        name.replaceAll("_", "-"),
        [...table.keys()].map((known) => known.replaceAll("_", "-")),
      );
      issues.push(
        `${flag}: the installed sglang_router has no such setting${near.length === 0 ? "" : `; did you mean --router-${near.join(" or --router-")}?`}`,
      );
    } else given[name] = value;
  }
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  const { host, port, metricsPort, policy, pd, requestTimeoutSecs } = request;
  const all: ServerArgs = {
    ...choices,
    ...given,
    host,
    port,
    policy,
    pd_disaggregation: pd,
    prometheus_host: host,
    prometheus_port: metricsPort,
    request_timeout_secs: requestTimeoutSecs,
    worker_startup_timeout_secs: registerSecsMax,
    ...(policy === "power_of_two" && !pd ? { worker_urls: nobody } : {}),
  };
  return Object.fromEntries(Object.entries(all).flatMap(([name, value]) => (value === null ? [] : [[name, value]])));
}
