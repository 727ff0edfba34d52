import { engineGpus } from "./engine-groups.js";
import { flags, type RunConfig } from "./flags.js";
import { suggestions } from "./suggest.js";

/** Flags that only SGLang engines read. */
const sglangOnly = [
  "sglang-python",
  "sglang-env",
  "sglang-config",
  "prefill-num-servers",
  "rollout-external-engine-addrs",
  "update-weight-transport",
  "update-weight-disk-dir",
  "update-weight-disk-keep-files",
] as const;

/** Contradictions of flags that say which engines there are. `given`: flags set by somebody. */
export function engineProblems(config: RunConfig, given: ReadonlySet<string>): string[] {
  const out: string[] = [];
  const passed = Object.keys(config.sglangArgs).map((name) => `sglang-${name.replaceAll("_", "-")}`);
  if (config.rolloutBackend === "embedded") {
    const needed = config.routerBackend === "sglang_router" ? ["sglang-python", "sglang-env"] : [];
    for (const flag of [...sglangOnly.filter((flag) => given.has(flag) && !needed.includes(flag)), ...passed])
      out.push(`--${flag} is a setting of SGLang engines: give --rollout-backend sglang, or leave it out${orMeant(flag)}`);
    return out;
  }
  for (const [name, value] of Object.entries(config.sglangEnv))
    if (typeof value !== "string") out.push(`--sglang-env: ${name} must be text, got ${JSON.stringify(value)}`);
  const external = config.rolloutExternalEngineAddrs;
  const described = ["sglang-config", "prefill-num-servers", "rollout-external-engine-addrs"].filter((flag) => given.has(flag));
  if (described.length > 1)
    out.push(`${described.map((flag) => `--${flag}`).join(" and ")} exclude each other: each says which engines there are`);
  for (const address of external)
    if (!/^(http:\/\/)?[^\s/:]+:\d{1,5}$/.test(address))
      out.push(`--rollout-external-engine-addrs: ${JSON.stringify(address)} is not HOST:PORT`);
  if (new Set(external).size < external.length) out.push("--rollout-external-engine-addrs names an address twice");
  if (external.length > 0) {
    for (const flag of ["rollout-num-gpus", "rollout-num-gpus-per-engine"])
      if (given.has(flag)) out.push(`--${flag} has no effect on --rollout-external-engine-addrs: their servers hold their own GPUs`);
    for (const flag of passed) out.push(`--${flag} has no effect on --rollout-external-engine-addrs: those servers run already`);
  }
  const gpus = config.rolloutNumGpus ?? config.rolloutNumGpusPerEngine;
  if (config.prefillNumServers !== null && config.prefillNumServers * config.rolloutNumGpusPerEngine >= gpus)
    out.push(
      `--prefill-num-servers ${config.prefillNumServers} × --rollout-num-gpus-per-engine ${config.rolloutNumGpusPerEngine} leaves none of --rollout-num-gpus ${gpus} to decode`,
    );
  if (config.sglangModels !== null) {
    const sum = engineGpus(config.sglangModels);
    if (config.rolloutNumGpus !== null && config.rolloutNumGpus !== sum)
      out.push(
        `--sglang-config gives its groups ${sum} GPUs, --rollout-num-gpus says ${config.rolloutNumGpus}: make them equal, or leave the flag out`,
      );
    for (const { name, groups } of config.sglangModels) {
      const types = new Set(groups.map(({ workerType }) => workerType));
      if (types.has("prefill") !== types.has("decode"))
        out.push(`--sglang-config, model ${name}: prefill and decode groups need each other`);
      if (types.has("prefill") && types.has("regular"))
        out.push(`--sglang-config, model ${name}: regular engines beside prefill and decode ones; take one kind`);
    }
  }
  if (config.updateWeightTransport !== "disk") {
    for (const flag of ["update-weight-disk-dir", "update-weight-disk-keep-files"])
      if (given.has(flag)) out.push(`--${flag} has no effect without --update-weight-transport disk`);
  }
  return out;
}

/** A misspelt flag of our own looks like a server's. */
function orMeant(flag: string): string {
  const near = suggestions(
    flag,
    flags.map(({ name }) => name),
  ).filter((name) => name !== flag);
  return near.length > 0 ? ` (or did you mean ${near.map((name) => `--${name}`).join(" or ")}?)` : "";
}

/** Contradictions of flags that say what stands in front of the engines. */
export function routerProblems(config: RunConfig, given: ReadonlySet<string>): string[] {
  const out: string[] = [];
  const passed = Object.keys(config.routerArgs);
  if (config.routerBackend === "slime") {
    for (const name of passed)
      out.push(
        `--router-${name.replaceAll("_", "-")} is a setting of sglang_router: give --router-backend sglang_router, or leave it out${orMeant(`router-${name.replaceAll("_", "-")}`)}`,
      );
    if (given.has("sglang-router-request-timeout-secs"))
      out.push("--sglang-router-request-timeout-secs is read with --router-backend sglang_router only");
  } else if (config.routerPolicy === "least_in_flight") {
    out.push("--router-policy least_in_flight is not one of sglang_router's; its nearest is power_of_two");
  }
  if (config.routerPolicy !== "cache_aware") {
    for (const flag of ["router-balance-abs-threshold", "router-balance-rel-threshold"])
      if (given.has(flag)) out.push(`--${flag} is read with --router-policy cache_aware only`);
  }
  return out;
}
