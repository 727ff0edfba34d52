import { type Clock, deadline } from "@slime/core";
import { Pool, type Dispatcher as Undici } from "undici";
import { SseTail } from "./sse-tail.js";
import { type Attempt, type AttemptOutcome, type ForwardRequest, type ReplySink, retryableStatuses, type Transport } from "./transport.js";

/** Headers of one hop, which a proxy must not pass on (RFC 9110 §7.6.1), beside those the sender sets anew. */
const hopHeaders: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "expect",
]);

/** End-to-end headers of raw pairs, without those in `also` (lower case). */
export function endToEndHeaders(raw: readonly string[], also: readonly string[]): string[] {
  const out: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? "";
    const lower = name.toLowerCase();
    if (!hopHeaders.has(lower) && !also.includes(lower)) out.push(name, raw[i + 1] ?? "");
  }
  return out;
}

/** Engines over undici's pools, one per engine, as many connections as requests. */
export function undiciTransport(options: { readonly connectTimeoutMs: number; readonly clock: Clock }): Transport {
  const pools = new Map<string, Pool>();
  const poolOf = (url: string): Pool => {
    const known = pools.get(url);
    if (known !== undefined) return known;
    // Generation takes as long as it takes: who hangs is found by probes, and callers bring deadlines.
    const pool = new Pool(url, { connectTimeout: options.connectTimeoutMs, headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 4_000 });
    pools.set(url, pool);
    return pool;
  };
  return {
    send: (url, request, sink, passRefusals) => send(poolOf(url), request, sink, passRefusals),
    async probe(url, { timeoutMs, version }) {
      using limit = deadline(options.clock, timeoutMs, `a probe of ${url}`);
      const { signal } = limit;
      try {
        const health = await poolOf(url).request({ path: "/health", method: "GET", signal });
        await health.body.dump();
        if (health.statusCode !== 200) return { ok: false, reason: `/health answered ${health.statusCode}` };
        if (!version) return { ok: true, found: null };
        const info = await poolOf(url).request({ path: "/model_info", method: "GET", signal });
        const json: unknown = await info.body.json();
        const found = typeof json === "object" && json !== null && "weight_version" in json ? String(json.weight_version) : null;
        return { ok: true, found };
      } catch (error) {
        return { ok: false, reason: signal.aborted ? `no answer to a probe within ${timeoutMs} ms` : reasonOf(error) };
      }
    },
    forget(url) {
      const pool = pools.get(url);
      pools.delete(url);
      // Requests in flight may end; the pool goes with the last of them.
      void pool?.close();
    },
    async close() {
      await Promise.all([...pools.values()].map((pool) => pool.destroy()));
      pools.clear();
    },
  };
}

function send(pool: Pool, request: ForwardRequest, sink: ReplySink, passRefusals: boolean): Attempt {
  let settle: (outcome: AttemptOutcome) => void = () => {};
  let left: () => void = () => {};
  const outcome = new Promise<AttemptOutcome>((resolve) => (settle = resolve));
  const sent = new Promise<void>((resolve) => (left = resolve));
  const handler = new AttemptHandler(sink, passRefusals, left, settle);
  try {
    pool.dispatch(
      { path: request.path, method: request.method as Undici.HttpMethod, headers: [...request.headers], body: request.body },
      handler,
    );
  } catch (error) {
    handler.onResponseError(null, error instanceof Error ? error : new Error(String(error)));
  }
  return { outcome, sent, cancel: () => handler.cancel() };
}

type Phase =
  | { readonly kind: "queued" }
  | { readonly kind: "sent" }
  | { readonly kind: "answering"; readonly status: number; readonly tail: SseTail | null }
  | { readonly kind: "over" };

/** undici's events of one request, turned into an outcome and calls of the sink. After `over` every event is ignored. */
class AttemptHandler implements Undici.DispatchHandler {
  readonly #sink: ReplySink;
  readonly #passRefusals: boolean;
  readonly #left: () => void;
  readonly #settle: (outcome: AttemptOutcome) => void;
  #controller: Undici.DispatchController | null = null;
  #phase: Phase = { kind: "queued" };

  constructor(sink: ReplySink, passRefusals: boolean, left: () => void, settle: (outcome: AttemptOutcome) => void) {
    this.#sink = sink;
    this.#passRefusals = passRefusals;
    this.#left = left;
    this.#settle = settle;
  }

  onRequestStart(controller: Undici.DispatchController): void {
    this.#controller = controller;
    if (this.#phase.kind === "over") return controller.abort(new Error("given up before it was sent"));
    this.#phase = { kind: "sent" };
    this.#left();
  }

  onResponseStart(controller: Undici.DispatchController, status: number, headers: Record<string, unknown>): void {
    if (this.#phase.kind === "over" || status < 200) return;
    if (!this.#passRefusals && retryableStatuses.has(status)) {
      this.#end({ kind: "refused", status });
      return controller.abort(new Error("tried elsewhere"));
    }
    const isStream = String(headers["content-type"] ?? "").startsWith("text/event-stream");
    this.#phase = { kind: "answering", status, tail: isStream ? new SseTail() : null };
    this.#sink.begin(status, endToEndHeaders((controller.rawHeaders as readonly (Buffer | string)[]).map(String), []));
  }

  onResponseData(controller: Undici.DispatchController, chunk: Buffer): void {
    if (this.#phase.kind !== "answering") return;
    const whole = this.#phase.tail === null ? chunk : this.#phase.tail.take(chunk);
    if (whole.length > 0 && !this.#sink.data(whole, () => controller.resume())) controller.pause();
  }

  onResponseEnd(): void {
    if (this.#phase.kind !== "answering") return;
    const { status, tail } = this.#phase;
    const rest = tail?.rest();
    if (rest !== undefined && rest.length > 0) this.#sink.data(rest, () => {});
    this.#end({ kind: "answered", status });
    this.#sink.end();
  }

  onResponseError(_controller: Undici.DispatchController | null, error: Error): void {
    const reason = reasonOf(error);
    switch (this.#phase.kind) {
      case "over":
        return;
      case "queued":
        return this.#end({ kind: "unreachable", reason });
      case "sent":
        return this.#end({ kind: "broken", reason });
      case "answering":
        return this.#cut(reason);
    }
  }

  cancel(): void {
    if (this.#phase.kind === "over") return;
    if (this.#phase.kind === "answering") this.#cut("the engine stopped answering");
    else this.#end({ kind: "abandoned" });
    this.#controller?.abort(new Error("given up"));
  }

  #cut(reason: string): void {
    this.#end({ kind: "cut", reason });
    this.#sink.cut(reason);
  }

  #end(outcome: AttemptOutcome): void {
    this.#phase = { kind: "over" };
    this.#left();
    this.#settle(outcome);
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error instanceof AggregateError ? error.errors[0] : error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  const message = cause instanceof Error ? cause.message : error.message;
  return code === "" || message.includes(code) ? message : `${code}: ${message}`;
}
