import { SlimeError } from "@slime/core";
import type { ArgTable } from "./server-arg-fields.js";
import type { ServerArgs, ServerArgValue, ServerSpec } from "./server-command.js";

/** What an engine does: all of generation, one half of it, or images for the others. */
export type ServerRole = "regular" | "prefill" | "decode" | "encoder";

/** Everything that decides one SGLang process. */
export interface ServerRequest {
  readonly python: string;
  readonly modelPath: string;
  readonly env: Readonly<Record<string, string>>;
  /** `--sglang-*`, without the prefix, in snake_case. */
  readonly passThrough: ServerArgs;
  /** Its group's `overrides`, names with dashes or underscores: stronger than anything but what names processes, ports and GPUs. */
  readonly overrides: ServerArgs;
  readonly run: {
    readonly seed: number;
    readonly gpusPerNode: number;
    /** The trainer's numbers are float16. */
    readonly fp16: boolean;
    readonly trustRemoteCode: boolean;
    /** The experts that routed each token come back with the answer. */
    readonly returnRoutedExperts: boolean;
  };
  readonly engine: {
    readonly role: ServerRole;
    /** Counts the run's engine processes; every node of an engine has the first one's. */
    readonly rank: number;
    /** Over all its nodes. */
    readonly gpus: number;
    /** It gives its memory back between rollouts. */
    readonly offload: boolean;
    /** Its weights stay what the checkpoint has. */
    readonly frozen: boolean;
    /** Where prefill and regular engines send images; empty: they keep them. */
    readonly encoderUrls: readonly string[];
  };
  readonly node: {
    readonly rank: number;
    readonly count: number;
    readonly gpuUuids: readonly string[];
    /** What it listens on. */
    readonly host: string;
  };
  /** Ports of this node. */
  readonly ports: {
    readonly http: number;
    readonly nccl: number;
    /** Prefill engines only. */
    readonly bootstrap: number | null;
    /** `host:port` of the engine's first node, where several nodes or data-parallel attention need it; see `distInitPorts`. */
    readonly distInit: string | null;
  };
}

export interface SpecOptions {
  /** What the installed SGLang takes; null: not known, nothing is checked. */
  readonly table: ArgTable | null;
  /** Known names that a wrong one may have meant; both with dashes. */
  readonly suggest?: (wrong: string, known: readonly string[]) => readonly string[];
}

const aliases: Readonly<Record<string, string>> = {
  model: "model_path",
  tensor_parallel_size: "tp_size",
  pipeline_parallel_size: "pp_size",
  data_parallel_size: "dp_size",
  nccl_init_addr: "dist_init_addr",
};

const leased = "ports are leased from the node";
const placed = "it follows from where the engine's processes sit";
const gpusOnly = "an engine sees the GPUs of its bundles only";

/** What nobody sets, since something else has decided it. */
const owned: Readonly<Record<string, string>> = {
  model_path: "model_path of its model, or --hf-checkpoint, names the model",
  config: "SGLang's own file of flags is not read; --sglang-config describes the servers",
  tp_size: "it follows from the GPUs of an engine (--rollout-num-gpus-per-engine, num_gpus_per_engine) divided by pp_size",
  host: placed,
  port: leased,
  nccl_port: leased,
  disaggregation_bootstrap_port: leased,
  nnodes: placed,
  node_rank: placed,
  dist_init_addr: placed,
  base_gpu_id: gpusOnly,
  gpu_id_step: gpusOnly,
  disaggregation_mode: "the engine's worker type says it (worker_type, --prefill-num-servers)",
  encoder_only: "the engine's worker type says it",
};

/** What a run computes, so that its flags cannot say otherwise; a group's overrides may. */
const computedByRun: Readonly<Record<string, string>> = {
  random_seed: "it follows from --rollout-seed and the engine's number",
  trust_remote_code: "the run decides it",
  enable_memory_saver: "it is on where engines give their memory back",
  skip_server_warmup: "an engine is ready once it has generated",
  enable_return_routed_experts: "the routing replay of the run decides it",
};

/**
 * The complete process of one engine on one node: what slime computes, over the run's `--sglang-*`, under the group's overrides. Pure.
 * A1 nothing of `owned` comes from the user. A2 an override wins over everything else. A3 with a table, every name is one that this
 * SGLang takes, and each flag is what its command line calls it.
 * @throws SlimeError `config.invalid` with every issue at once.
 */
export function serverSpec(request: ServerRequest, { table, suggest = () => [] }: SpecOptions): ServerSpec {
  const issues: string[] = [];
  const check = { table, suggest, issues };
  const passThrough = named(request.passThrough, { ...check, refused: { ...owned, ...computedByRun }, where: "--sglang-" });
  const overrides = named(request.overrides, { ...check, refused: owned, where: "overrides: " });
  const settings = { ...withoutDecodeOnly(request, passThrough), ...overrides };
  const computed = computedArgs(request, settings, issues);
  const taken = Object.entries(computed).flatMap(([name, setting]): [string, ServerArgValue][] => {
    if (table === null || table.has(name)) return [[name, setting.value]];
    if (setting.need !== null) issues.push(`the installed SGLang has no ${name}, and ${setting.need}`);
    return [];
  });
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  const args = { ...withoutDecodeOnly(request, passThrough), ...Object.fromEntries(taken), ...overrides };
  const { node, ports } = request;
  return {
    python: request.python,
    modelPath: request.modelPath,
    host: node.host,
    port: ports.http,
    args: flagged(args, table),
    env: request.env,
    gpuUuids: node.gpuUuids,
    node: { rank: node.rank, count: node.count, distInitAddress: ports.distInit },
  };
}

/**
 * How many ports in a row an engine's first node needs from its `distInit` port on (SGLang derives the next ones from it by counting);
 * 0: none, it is one node without data-parallel attention.
 */
export function distInitPorts(args: ServerArgs, nodes: number): number {
  const dp = numberOf(args["dp_size"]) ?? 1;
  return nodes > 1 || hasDpAttention(args) ? 30 + dp : 0;
}

/** Replicas that share the engine's GPUs: `enable_dp_attention` until 0.5.17, `attn_dp_size` in 0.5.23. */
function hasDpAttention(args: ServerArgs): boolean {
  return args["enable_dp_attention"] === true || (numberOf(args["attn_dp_size"]) ?? 1) > 1;
}

interface Computed {
  readonly value: ServerArgValue;
  /** What is lost without it; null: it is only better with it. */
  readonly need: string | null;
}

/** What slime decides for every server. `settings`: what the user gave, to derive from. */
function computedArgs(request: ServerRequest, settings: ServerArgs, issues: string[]): Readonly<Record<string, Computed>> {
  const { run, engine, ports } = request;
  const useful = (value: ServerArgValue): Computed => ({ value, need: null });
  const needed = (value: ServerArgValue, need: string): Computed => ({ value, need });
  return {
    tp_size: needed(tensorParallelSize(request, settings, issues), "an engine over several GPUs needs it"),
    random_seed: useful(run.seed + engine.rank * run.gpusPerNode),
    trust_remote_code: useful(run.trustRemoteCode),
    nccl_port: useful(ports.nccl),
    skip_server_warmup: useful(true),
    enable_metrics: useful(true),
    enable_memory_saver: engine.offload ? needed(true, "this engine must give its memory back between rollouts") : useful(false),
    ...(engine.offload ? { cuda_graph_backend_prefill: useful("disabled") } : {}),
    ...(engine.offload && engine.frozen
      ? { enable_weights_cpu_backup: needed(true, "frozen weights must survive the release of their memory") }
      : {}),
    ...(isGiven(settings["speculative_algorithm"]) ? { enable_draft_weights_cpu_backup: useful(true) } : {}),
    ...(run.fp16 ? { dtype: needed("float16", "the trainer's numbers are float16") } : {}),
    ...(run.returnRoutedExperts ? { enable_return_routed_experts: needed(true, "the routing replay needs what it returns") } : {}),
    ...roleArgs(request, needed, issues),
  };
}

/** Prefill and decode split, and encoders apart. */
function roleArgs(
  { engine, ports }: ServerRequest,
  needed: (value: ServerArgValue, need: string) => Computed,
  issues: string[],
): Readonly<Record<string, Computed>> {
  const split = "prefill and decode cannot be split without it";
  const images = {
    language_only: needed(true, "images go to encoders"),
    encoder_urls: needed([...engine.encoderUrls], "images go to encoders"),
  };
  const toEncoders = engine.encoderUrls.length > 0 ? images : {};
  switch (engine.role) {
    case "regular":
      return toEncoders;
    case "prefill":
      if (ports.bootstrap === null) issues.push("a prefill engine needs a bootstrap port: lease one for it");
      return {
        ...toEncoders,
        disaggregation_mode: needed("prefill", split),
        disaggregation_bootstrap_port: needed(ports.bootstrap, split),
        // A request's decode engine asks the rank that its room number names.
        load_balance_method: needed("follow_bootstrap_room", split),
      };
    case "decode":
      return { disaggregation_mode: needed("decode", split) };
    case "encoder":
      return { encoder_only: needed(true, "an encoder is nothing else") };
  }
}

function tensorParallelSize({ engine, node }: ServerRequest, settings: ServerArgs, issues: string[]): number {
  const pp = numberOf(settings["pp_size"]) ?? 1;
  const dp = numberOf(settings["dp_size"]) ?? 1;
  if (!Number.isInteger(engine.gpus / pp)) issues.push(`pp_size ${pp} does not divide the ${engine.gpus} GPUs of an engine`);
  if (engine.gpus % node.count !== 0) issues.push(`the ${engine.gpus} GPUs of an engine do not divide over its ${node.count} nodes`);
  if (dp > 1 && !hasDpAttention(settings))
    issues.push(
      `dp_size ${dp} makes replicas that each need the engine's GPUs: start more engines instead, or set enable_dp_attention (attn_dp_size in 0.5.23)`,
    );
  return Math.max(1, Math.floor(engine.gpus / pp));
}

/** A decode engine's cache comes from elsewhere: what keeps prompts for later is not for it, unless its group says so. */
function withoutDecodeOnly({ engine }: ServerRequest, args: ServerArgs): ServerArgs {
  if (engine.role !== "decode") return args;
  const { enable_hierarchical_cache: _, ...rest } = args;
  return rest;
}

/** Settings under their fields' names; what may not be given becomes an issue. */
function named(
  args: ServerArgs,
  parts: {
    readonly table: ArgTable | null;
    readonly suggest: (wrong: string, known: readonly string[]) => readonly string[];
    readonly issues: string[];
    readonly refused: Readonly<Record<string, string>>;
    /** Says where a setting comes from, before its name. */
    readonly where: string;
  },
): ServerArgs {
  const { table, issues, where } = parts;
  const found: Record<string, ServerArgValue> = {};
  for (const [given, value] of Object.entries(args)) {
    const plain = given.replaceAll("-", "_");
    const field = table?.get(plain);
    const name = field?.name ?? aliases[plain] ?? plain;
    const shown = `${where}${plain.replaceAll("_", "-")}`;
    if (Object.hasOwn(parts.refused, name)) issues.push(`${shown} is not yours to give: ${parts.refused[name]}`);
    else if (table !== null && field === undefined) {
      const near = parts.suggest(
        plain.replaceAll("_", "-"),
        [...table.keys()].map((known) => known.replaceAll("_", "-")),
      );
      issues.push(`${shown}: the installed SGLang has no such setting${near.length === 0 ? "" : `; did you mean ${near.join(" or ")}?`}`);
    } else if (field?.flag === null) issues.push(`${shown} cannot be given on SGLang's command line`);
    else if (Object.hasOwn(found, name)) issues.push(`${shown} is given twice, under another name too`);
    else found[name] = value;
  }
  return found;
}

/** Fields as their flags: the names of the command line, and a `no_` form where false is one. */
function flagged(args: ServerArgs, table: ArgTable | null): ServerArgs {
  return Object.fromEntries(
    Object.entries(args).map(([name, value]) => {
      const field = table?.get(name);
      const flag = field?.flag ?? name;
      return field?.negatable === true && value === false ? [`no_${flag}`, true] : [flag, value];
    }),
  );
}

function isGiven(value: ServerArgValue | undefined): boolean {
  return value !== undefined && value !== null && value !== false;
}

function numberOf(value: ServerArgValue | undefined): number | null {
  return typeof value === "number" ? value : null;
}
