import type {
  Engine,
  EngineInfo,
  EngineLoad,
  GenerateRequest,
  GenerateResult,
  PauseMode,
  WeightReceipt,
  WeightSpan,
  WeightUpdate,
} from "@slime/backend";
import { type Clock, SlimeError, systemClock } from "@slime/core";
import { type ParsedReply, parseReply, SpanCounter, versionNumber } from "./engine-reply.js";
import { type HttpCall, HttpClient, type HttpReply, refusalText, replyJson } from "./http-client.js";
import { SseEvents } from "./sse-events.js";

export interface HttpEngineOptions {
  readonly clock?: Clock;
  /** For calls that answer at once. */
  readonly controlTimeoutMs?: number;
  /** For weight updates and flushes, which may wait for running requests. */
  readonly updateTimeoutMs?: number;
  /** Tokens between chunks when a caller listens and its request does not say; each chunk repeats all before it, so a small number costs squares. */
  readonly streamInterval?: number;
  /** What is known of the weights behind this url where no header tells; default: nothing. */
  readonly versions?: KnownVersions;
}

/**
 * `one`: pushes cut what runs, so every reply comes from the one version it names. `floor`: whoever answers a request sent now has at least
 * this version (null: not known), so a reply that names the same saw no other.
 */
export type KnownVersions = { readonly kind: "one" } | { readonly kind: "floor"; readonly floor: () => number | null };

/** What sglang_router's consistent hashing and ours go by. */
const routingKeyHeader = "x-smg-routing-key";

type GenerateOptions = Parameters<Engine["generate"]>[1];

/**
 * An engine (or a router in front of some) reached by SGLang's HTTP routes.
 * H1: a status from 400 to 599 is `engine.refused`, with 429, 502, 503 and 504 as `engine.unavailable`: another try may succeed.
 * H2: a reply's spans are the engine's record where it keeps one; else counted from the stream; else one span, `mixed` unless the router's
 * header, or what is known of the versions, shows that the version did not change on the way. A mixed span counts as the oldest it may be.
 */
export class HttpEngine implements Engine {
  readonly url: string;
  readonly #http: HttpClient;
  readonly #controlMs: number;
  readonly #updateMs: number;
  readonly #streamInterval: number;
  readonly #versions: KnownVersions;

  constructor(url: string, options: HttpEngineOptions = {}) {
    this.url = url;
    this.#http = new HttpClient(url, options.clock ?? systemClock);
    this.#controlMs = options.controlTimeoutMs ?? 30_000;
    this.#updateMs = options.updateTimeoutMs ?? 180_000;
    this.#streamInterval = options.streamInterval ?? 32;
    this.#versions = options.versions ?? { kind: "floor", floor: () => null };
  }

  async generate(request: GenerateRequest, { signal, timeoutMs, onTokens, routingKey }: GenerateOptions): Promise<GenerateResult> {
    const how = {
      timeoutMs,
      ...(signal === undefined ? {} : { signal }),
      ...(routingKey === undefined ? {} : { headers: { [routingKeyHeader]: routingKey } }),
    };
    if (onTokens !== undefined) return this.#generateStreamed(request, onTokens, how);
    const floor = this.#versions.kind === "floor" ? this.#versions.floor() : null;
    const reply = this.#accept(await this.#http.call({ method: "POST", path: "/generate", json: request, ...how }));
    const parsed = parseReply(this.url, replyJson(this.url, reply));
    const header = reply.header("x-slime-weight-version");
    const sentAt = header !== null ? versionNumber(header) : this.#versions.kind === "one" ? versionNumber(parsed.weightVersion) : floor;
    return this.#finished(parsed, parsed.weightSpans ?? wholeSpan(parsed, sentAt));
  }

  async #generateStreamed(
    request: GenerateRequest,
    onTokens: (count: number, weightVersion: string) => void,
    how: Pick<HttpCall, "timeoutMs" | "signal" | "headers">,
  ): Promise<GenerateResult> {
    const events = new SseEvents();
    const counter = new SpanCounter();
    let last: ParsedReply | null = null;
    let done = false;
    const onChunk = (chunk: Buffer) => {
      for (const data of events.take(chunk)) {
        if (data === "[DONE]") {
          done = true;
          continue;
        }
        last = parseReply(this.url, streamedJson(this.url, data));
        counter.count(last.outputIds.length, last.weightVersion);
        onTokens(last.outputIds.length, last.weightVersion);
      }
    };
    const sampling_params = { stream_interval: this.#streamInterval, ...request.sampling_params };
    this.#accept(
      await this.#http.call({
        method: "POST",
        path: "/generate",
        json: { ...request, sampling_params, stream: true },
        onChunk,
        ...how,
      }),
    );
    // The callback assigned it, which control flow analysis cannot see.
    const parsed = last as ParsedReply | null;
    if (!done || parsed === null)
      throw new SlimeError("engine.unavailable", `${this.url} ended its stream without [DONE]`, {
        engine: this.url,
        reason: "stream broke off",
      });
    return this.#finished(parsed, parsed.weightSpans ?? counter.spans);
  }

  #finished(parsed: ParsedReply, weightSpans: readonly WeightSpan[]): GenerateResult {
    if (parsed.finishReason === null)
      throw new SlimeError("engine.unavailable", `${this.url} answered /generate without a finish_reason`, {
        engine: this.url,
        reason: "no finish_reason",
      });
    return { ...parsed, finishReason: parsed.finishReason, weightSpans };
  }

  async health(timeoutMs: number): Promise<void> {
    await this.#get("/health", timeoutMs);
  }

  /** From /server_info; a stock server says neither vocabulary nor, sometimes, context: 0 then. */
  async info(): Promise<EngineInfo> {
    const fields = replyJson(this.url, await this.#get("/server_info", this.#controlMs));
    // /server_info tells the version that a server was started with, in 0.5.23 for ever; this one goes with the weights.
    const model = { ...fields, ...replyJson(this.url, await this.#get("/model_info", this.#controlMs)) };
    const number = (value: unknown) => (typeof value === "number" ? value : 0);
    return {
      url: this.url,
      modelPath: String(model["model_path"] ?? ""),
      weightVersion: String(model["weight_version"] ?? "default"),
      vocabularySize: number(fields["vocab_size"]),
      contextLength: number(fields["context_length"] ?? fields["max_req_input_len"]),
      server: String(fields["version"] ?? "unknown"),
    };
  }

  async load(): Promise<EngineLoad> {
    const { loads } = replyJson(this.url, await this.#get("/v1/loads?include=core", this.#controlMs)) as { readonly loads?: unknown };
    const rows = (Array.isArray(loads) ? loads : []) as readonly (Readonly<Record<string, unknown>> | null)[];
    const sum = (...names: readonly string[]) =>
      rows.reduce((total, row) => total + Number(names.map((name) => row?.[name]).find((value) => typeof value === "number") ?? 0), 0);
    // A stock server counts no tokens over its life; used cache entries move while it works.
    return {
      running: sum("num_running_reqs"),
      waiting: sum("num_waiting_reqs"),
      tokensTotal: sum("output_tokens_total", "num_used_tokens"),
    };
  }

  async abort(target: { readonly rid: string } | { readonly all: true }): Promise<void> {
    await this.#post("/abort_request", "rid" in target ? { rid: target.rid } : { abort_all: true }, this.#controlMs);
  }

  async pause(mode: PauseMode): Promise<void> {
    await this.#post("/pause_generation", { mode }, this.#controlMs);
  }

  async resume(): Promise<void> {
    await this.#post("/continue_generation", {}, this.#controlMs);
  }

  /** Waits up to five seconds for what was just aborted to be gone. @throws `engine.refused` when requests are still held. */
  async flush(): Promise<void> {
    await this.#get("/flush_cache?timeout=5", this.#updateMs);
  }

  /** Never with `flush_cache`: a stock server dies of it while it holds requests. @throws `weights.mismatch` when the engine did not take them, or loaded something else. */
  async updateWeights({ version, source }: WeightUpdate): Promise<WeightReceipt> {
    const common = { weight_version: String(version), flush_cache: false };
    const mismatch = (reason: string, cause?: unknown) =>
      new SlimeError(
        "weights.mismatch",
        `${this.url}, version ${version}: ${reason}`,
        { engine: this.url, version, reason },
        cause === undefined ? {} : { cause },
      );
    const [path, body] =
      source.kind === "directory"
        ? (["/update_weights_from_disk", { model_path: source.path, ...common }] as const)
        : ([
            "/update_weights_from_tensor",
            { load_format: "slime_shared_memory", path: source.path, bytes: source.bytes, checksum: source.checksum, ...common },
          ] as const);
    const reply = await this.#post(path, body, this.#updateMs).catch((error: unknown) => {
      throw SlimeError.is(error, "engine.refused") && error.details.status === 400 ? mismatch(error.details.reason, error) : error;
    });
    const fields = replyJson(this.url, reply);
    const checksum = typeof fields["checksum"] === "string" ? fields["checksum"] : null;
    if (fields["success"] === false) throw mismatch(String(fields["message"] ?? "not loaded"));
    if (source.kind === "shared-memory" && checksum !== null && checksum !== source.checksum)
      throw mismatch(`it loaded ${checksum}, ${source.checksum} was sent`);
    return { version: typeof fields["weight_version"] === "string" ? fields["weight_version"] : String(version), checksum };
  }

  async close(): Promise<void> {
    await this.#http.close();
  }

  async #get(path: string, timeoutMs: number): Promise<HttpReply> {
    return this.#accept(await this.#http.call({ method: "GET", path, timeoutMs }));
  }

  async #post(path: string, json: unknown, timeoutMs: number): Promise<HttpReply> {
    return this.#accept(await this.#http.call({ method: "POST", path, json, timeoutMs }));
  }

  /** H1. */
  #accept(reply: HttpReply): HttpReply {
    const { status } = reply;
    if (status >= 200 && status < 300) return reply;
    const reason = refusalText(reply.body);
    if ([429, 502, 503, 504].includes(status))
      throw new SlimeError("engine.unavailable", `${this.url} answered ${status}: ${reason}`, { engine: this.url, reason });
    throw new SlimeError("engine.refused", `${this.url} answered ${status}: ${reason}`, { engine: this.url, status, reason });
  }
}

/** `sentAt`: the version that the engine had at least when it was asked; null: not known. */
function wholeSpan(reply: ParsedReply, sentAt: number | null): readonly WeightSpan[] {
  if (reply.outputIds.length === 0) return [];
  const version = versionNumber(reply.weightVersion);
  return [{ version: Math.min(version, sentAt ?? version), from: 0, to: reply.outputIds.length, mixed: sentAt !== version }];
}

/**
 * A chunk's object. @throws for an error event: `engine.refused` where it carries a code from 400 to 499 (SGLang's way to refuse a stream, whose
 * status is 200), else `engine.unavailable`: the router's word that the engine broke off, or the engine's own.
 */
function streamedJson(url: string, data: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch (cause) {
    throw new SlimeError(
      "engine.unavailable",
      `${url} streamed something that is not JSON`,
      { engine: url, reason: "not JSON" },
      { cause },
    );
  }
  if (typeof value !== "object" || value === null)
    throw new SlimeError("engine.unavailable", `${url} streamed JSON that is no object`, { engine: url, reason: "no object" });
  if ("error" in value) {
    const reason = refusalText(Buffer.from(data));
    const { error } = value as { readonly error: unknown };
    const status = typeof error === "object" && error !== null && "code" in error ? error.code : null;
    if (typeof status === "number" && status >= 400 && status < 500 && status !== 429)
      throw new SlimeError("engine.refused", `${url} refused a stream with ${status}: ${reason}`, { engine: url, status, reason });
    throw new SlimeError("engine.unavailable", `${url} broke off its stream: ${reason}`, { engine: url, reason });
  }
  return value as Readonly<Record<string, unknown>>;
}
