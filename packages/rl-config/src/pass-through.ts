/**
 * Flags that belong to a server slime starts and that are handed to it under its own names: `--sglang-*` to SGLang (its `ServerArgs`),
 * `--router-*` to sglang_router (its `RouterArgs`). A name with a row in the table is that row's. Which names a server knows is asked of
 * the installed one when the run is planned.
 */
import { suggestions } from "./suggest.js";

/** What a server's setting may be; true is a bare switch. */
export type PassThroughValue = string | number | boolean | readonly (string | number)[] | null;
/** By the server's own name in snake_case: `mem_fraction_static`. */
export type PassThrough = Readonly<Record<string, PassThroughValue>>;

export interface PassThroughFamily {
  readonly prefix: "sglang-" | "router-";
  readonly key: "sglangArgs" | "routerArgs";
}

const families: readonly PassThroughFamily[] = [
  { prefix: "sglang-", key: "sglangArgs" },
  { prefix: "router-", key: "routerArgs" },
];

/** The family of a flag without a row, and the server's name for it; null: none. */
export function familyOf(name: string): { readonly family: PassThroughFamily; readonly setting: string } | null {
  const family = families.find(({ prefix }) => name.startsWith(prefix) && name.length > prefix.length);
  return family === undefined ? null : { family, setting: name.slice(family.prefix.length).replaceAll("-", "_") };
}

/** Words of a command line as a setting: none is a switch, several are a list, one is a number, a truth value, JSON or text. */
export function passedWords(words: readonly string[]): PassThroughValue {
  if (words.length === 0) return true;
  const values = words.map(passedText);
  return values.length === 1 ? (values[0] ?? null) : values.map((value) => (typeof value === "number" ? value : String(value)));
}

/** One text as a setting. A JSON object stays text: servers take such flags as text. */
export function passedText(text: string): string | number | boolean {
  if (text === "true") return true;
  if (text === "false") return false;
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** A value of YAML as a setting; undefined: not one. */
export function passedYaml(value: unknown): PassThroughValue | undefined {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  if (Array.isArray(value)) return value.every((item) => typeof item === "string" || typeof item === "number") ? value : undefined;
  return typeof value === "object" ? JSON.stringify(value) : undefined;
}

/** Settings that slime computes for every server it starts, and what decides them. */
const computed: Readonly<Record<PassThroughFamily["key"], Readonly<Record<string, string>>>> = {
  sglangArgs: {
    model_path: "--hf-checkpoint, or model_path of --sglang-config, names the model",
    tokenizer_path: "the tokenizer is the model's own",
    config: "--sglang-config describes the servers; SGLang's own file of flags is not read",
    host: "servers listen on loopback",
    port: "ports are leased from the node",
    nccl_port: "ports are leased from the node",
    dist_init_addr: "it follows from where the engine's nodes are",
    nnodes: "it follows from --rollout-num-gpus-per-engine and --num-gpus-per-node",
    node_rank: "it follows from where the engine's processes sit",
    tp_size: "it follows from --rollout-num-gpus-per-engine (divided by --sglang-pp-size)",
    tensor_parallel_size: "it follows from --rollout-num-gpus-per-engine (divided by --sglang-pp-size)",
    base_gpu_id: "an engine sees the GPUs of its bundles only",
    gpu_id_step: "an engine sees the GPUs of its bundles only",
    random_seed: "it follows from --rollout-seed and the engine's number",
    enable_memory_saver: "it is on where engines give their memory back (colocation, which is not built)",
    skip_server_warmup: "an engine is warmed by its first push's canary",
    disaggregation_mode: "--prefill-num-servers or worker_type of --sglang-config says it",
    disaggregation_bootstrap_port: "ports are leased from the node",
    api_key: "servers listen on loopback and take no key",
  },
  routerArgs: {
    host: "the router listens on loopback",
    port: "--sglang-router-port says it",
    worker_urls: "engines are registered when they are ready",
    pd_disaggregation: "it follows from the engines' roles",
    prefill: "engines are registered when they are ready",
    decode: "engines are registered when they are ready",
    prometheus_port: "ports are leased from the node",
    prometheus_host: "the router listens on loopback",
    request_timeout_secs: "--sglang-router-request-timeout-secs says it",
  },
};

/** Why a setting may not be passed; null: it may. `known`: what the installed server takes, null where that is not known. */
export function passThroughProblem(key: PassThroughFamily["key"], setting: string, known: ReadonlySet<string> | null): string | null {
  const flag = `--${key === "sglangArgs" ? "sglang" : "router"}-${setting.replaceAll("_", "-")}`;
  const why = computed[key][setting];
  if (why !== undefined) return `${flag} is not yours to give: ${why}`;
  if (known === null || known.has(setting)) return null;
  const near = suggestions(setting, [...known]).map(
    (name) => `--${key === "sglangArgs" ? "sglang" : "router"}-${name.replaceAll("_", "-")}`,
  );
  return `${flag}: the installed ${key === "sglangArgs" ? "SGLang" : "sglang_router"} has no such setting${near.length > 0 ? `; did you mean ${near.join(" or ")}?` : ""}`;
}
