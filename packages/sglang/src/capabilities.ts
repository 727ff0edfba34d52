import type { EngineRole } from "@slime/backend";
import { type Clock, SlimeError, systemClock } from "@slime/core";
import { HttpClient, refusalText, replyJson } from "@slime/router";

/** What a server can do, as it says itself; nothing here is guessed from a version alone. */
export interface ServerCapabilities {
  /** SGLang's own: "0.5.15". */
  readonly version: string;
  readonly modelPath: string;
  /** Names of Hugging Face's classes: ["Qwen3ForCausalLM"]. */
  readonly architectures: readonly string[];
  readonly weightVersion: string;
  readonly tpSize: number;
  readonly ppSize: number;
  readonly dpSize: number;
  readonly epSize: number;
  readonly nodes: number;
  readonly role: EngineRole;
  /** "cuda" or "cpu". */
  readonly device: string;
  readonly dtype: string;
  /** Longest sequence; null where the server does not say. */
  readonly contextLength: number | null;
  /** Pushes of tensors lie between /begin_weight_update and /end_weight_update (0.5.23). */
  readonly sessions: boolean;
  /** A flush succeeds while a pause by retract holds requests (0.5.23). */
  readonly flushWhileRetracted: boolean;
  /** Replies say which of their tokens came from which weights (0.5.23). */
  readonly weightSpans: boolean;
  /** Started with --enable-memory-saver, on a GPU. */
  readonly memorySaver: boolean;
  /** Started with --enable-weights-cpu-backup: released weights come back. */
  readonly weightsBackup: boolean;
  /** /weights_checker works: it needs a GPU. */
  readonly weightsChecker: boolean;
  /** Started with --enable-metrics. */
  readonly metrics: boolean;
  /** Started with --enable-deterministic-inference: `sampling_seed` decides the tokens. */
  readonly deterministic: boolean;
  /** The radix cache is off: prefixes of old weights cannot be served after a push without a flush. */
  readonly radixCacheOff: boolean;
  /** A step is computed while the one before is read: a pause in place leaves a token of the old weights to be said after it. */
  readonly overlap: boolean;
  /** Data-parallel replicas behind one port, without data-parallel attention: their weights cannot be updated. */
  readonly replicas: boolean;
}

/** The names of `ServerCapabilities` that are yes or no. */
export type Feature = "sessions" | "flushWhileRetracted" | "weightSpans" | "memorySaver" | "weightsChecker" | "metrics" | "deterministic";

/** Who has a feature, for those who miss it. */
const featureSource: Readonly<Record<Feature, string>> = {
  sessions: "SGLang 0.5.23 has /begin_weight_update and /end_weight_update",
  flushWhileRetracted: "SGLang 0.5.23 flushes while a pause by retract holds requests; before, pause by abort",
  weightSpans: "SGLang 0.5.23 says the weight version of every span of tokens",
  memorySaver: "start the server on a GPU with --enable-memory-saver and torch_memory_saver installed",
  weightsChecker: "/weights_checker of SGLang works on GPUs only",
  metrics: "start the server with --enable-metrics",
  deterministic: "start the server with --enable-deterministic-inference",
};

/** @throws `unsupported`, naming the version, patch or flag that has the feature. */
export function requireFeature(url: string, capabilities: ServerCapabilities, feature: Feature): void {
  if (capabilities[feature]) return;
  const why = featureSource[feature];
  throw new SlimeError("unsupported", `SGLang ${capabilities.version} at ${url} has no ${feature}: ${why}`, { what: feature, why });
}

export interface ProbeOptions {
  readonly clock?: Clock;
  /** For each of the few requests. /server_info asks the scheduler, so a server that only just listens may take its time. */
  readonly timeoutMs?: number;
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * Asks a server what it is: /server_info (or /get_server_info, its older name), /model_info, and OPTIONS of the routes that only some
 * versions have, which changes nothing: 405 says that a route is there, 404 that it is not.
 * @throws `engine.unavailable` when it does not answer, `unsupported` when what answers is no SGLang server.
 */
export async function probeCapabilities(url: string, options: ProbeOptions = {}): Promise<ServerCapabilities> {
  const http = new HttpClient(url, options.clock ?? systemClock);
  const timeoutMs = options.timeoutMs ?? 20_000;
  try {
    const server = await firstOf(http, ["/server_info", "/get_server_info"], timeoutMs);
    const model = await firstOf(http, ["/model_info", "/get_model_info"], timeoutMs);
    const sessions = (await http.call({ method: "OPTIONS", path: "/begin_weight_update", timeoutMs })).status !== 404;
    return capabilitiesOf(url, server, model, sessions);
  } finally {
    await http.close();
  }
}

/** Reads what the routes said. @throws `unsupported` when it is not what an SGLang server says. */
export function capabilitiesOf(url: string, server: Fields, model: Fields, sessions: boolean): ServerCapabilities {
  const version = server["version"];
  if (typeof version !== "string" || version === "") {
    const why = "its /server_info names no version";
    throw new SlimeError("unsupported", `${url} is no SGLang server: ${why}`, { what: "SGLang server", why });
  }
  const count = (name: string) => (typeof server[name] === "number" ? server[name] : 1);
  const yes = (name: string) => server[name] === true;
  const text = (value: unknown, fallback: string) => (typeof value === "string" ? value : fallback);
  const device = text(server["device"], "cuda");
  const newer = !isOlder(version, "0.5.23");
  return {
    version,
    modelPath: text(model["model_path"], text(server["model_path"], "")),
    architectures: Array.isArray(model["architectures"]) ? model["architectures"].map(String) : [],
    weightVersion: text(model["weight_version"], text(server["weight_version"], "default")),
    tpSize: count("tp_size"),
    ppSize: count("pp_size"),
    dpSize: count("dp_size"),
    epSize: count("ep_size"),
    nodes: count("nnodes"),
    role: roleOf(server),
    device,
    dtype: text(server["dtype"], "auto"),
    contextLength: contextOf(server),
    sessions,
    // What a server does without saying so: measured on 0.5.15, 0.5.17 (no) and 0.5.23 (yes).
    flushWhileRetracted: newer,
    weightSpans: newer,
    memorySaver: yes("enable_memory_saver") && device === "cuda",
    weightsBackup: yes("enable_weights_cpu_backup"),
    weightsChecker: device === "cuda",
    metrics: yes("enable_metrics"),
    deterministic: yes("enable_deterministic_inference"),
    radixCacheOff: yes("disable_radix_cache"),
    overlap: !yes("disable_overlap_schedule"),
    replicas: count("dp_size") > 1 && !yes("enable_dp_attention"),
  };
}

/** Compares dotted numbers: "0.5.15.post1" counts as 0.5.15. */
export function isOlder(version: string, than: string): boolean {
  const numbers = (text: string) =>
    text
      .split(".")
      .slice(0, 3)
      .map((part) => Number.parseInt(part, 10) || 0);
  const [left, right] = [numbers(version), numbers(than)];
  for (let i = 0; i < 3; i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

function roleOf(server: Fields): EngineRole {
  const port = server["disaggregation_bootstrap_port"];
  switch (server["disaggregation_mode"]) {
    case "prefill":
      return { kind: "prefill", bootstrapPort: typeof port === "number" ? port : 8998 };
    case "decode":
      return { kind: "decode" };
    default:
      return { kind: "regular" };
  }
}

function contextOf(server: Fields): number | null {
  if (typeof server["context_length"] === "number") return server["context_length"];
  // The longest prompt: SGLang keeps six tokens of the context back.
  return typeof server["max_req_input_len"] === "number" ? server["max_req_input_len"] + 6 : null;
}

/** The first of these routes that is there. */
async function firstOf(http: HttpClient, paths: readonly string[], timeoutMs: number): Promise<Fields> {
  let refusal = "";
  for (const path of paths) {
    const reply = await http.call({ method: "GET", path, timeoutMs });
    if (reply.status === 200) return replyJson(http.url, reply);
    refusal = `${path} answered ${reply.status}: ${refusalText(reply.body)}`;
    if (reply.status !== 404) break;
  }
  throw new SlimeError("engine.unavailable", `${http.url}: ${refusal}`, { engine: http.url, reason: refusal });
}
