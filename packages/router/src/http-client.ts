import { type Clock, deadline, SlimeError } from "@slime/core";
import { Pool } from "undici";

/** Largest reply read, in bytes: 64 k tokens with log-probs are 3 MB of JSON. */
export const replyBytesMax = 256 << 20;

export interface HttpReply {
  readonly status: number;
  readonly header: (name: string) => string | null;
  readonly body: Buffer;
}

export interface HttpCall {
  readonly method: "GET" | "POST" | "DELETE" | "OPTIONS";
  readonly path: string;
  readonly json?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  /** Gets the body of a 200 of server-sent events as it comes; the reply's `body` is empty then. */
  readonly onChunk?: (chunk: Buffer) => void;
}

/**
 * JSON over HTTP to one server, with a deadline for every call.
 * C1: a server that refuses the connection, breaks off or stays silent is `engine.unavailable`; the caller's own abort comes back as its reason.
 */
export class HttpClient {
  readonly url: string;
  readonly #clock: Clock;
  readonly #pool: Pool;

  constructor(url: string, clock: Clock) {
    this.url = url;
    this.#clock = clock;
    // Servers close idle connections after 5 s (SGLang); leaving earlier, no call meets a connection that is just being closed.
    this.#pool = new Pool(url, {
      headersTimeout: 0,
      bodyTimeout: 0,
      connectTimeout: 5_000,
      keepAliveTimeout: 4_000,
      keepAliveMaxTimeout: 60_000,
    });
  }

  async call({ method, path, json, timeoutMs, signal, onChunk, headers: extra = {} }: HttpCall): Promise<HttpReply> {
    const what = `${method} ${path} at ${this.url}`;
    using limit = deadline(this.#clock, timeoutMs, what, signal);
    try {
      const headers = { ...(json === undefined ? {} : { "content-type": "application/json" }), ...extra };
      const reply = await this.#pool.request({
        method,
        path,
        headers,
        body: json === undefined ? null : JSON.stringify(json),
        signal: limit.signal,
      });
      const header = (name: string): string | null => {
        const value = reply.headers[name];
        return typeof value === "string" ? value : (value?.[0] ?? null);
      };
      const streams = onChunk !== undefined && reply.statusCode === 200 && (header("content-type") ?? "").startsWith("text/event-stream");
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of reply.body as AsyncIterable<Buffer>) {
        if (streams) {
          onChunk(chunk);
          continue;
        }
        bytes += chunk.length;
        if (bytes > replyBytesMax)
          throw new SlimeError("wire.limit", `${what} replied more than replyBytesMax (${replyBytesMax} bytes)`, {
            what: "reply",
            value: bytes,
            max: replyBytesMax,
          });
        chunks.push(chunk);
      }
      return { status: reply.statusCode, header, body: Buffer.concat(chunks) };
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (SlimeError.isAny(error) && !SlimeError.is(error, "call.deadline")) throw error;
      const reason = error instanceof Error ? (error.message === "" ? error.name : error.message) : String(error);
      throw new SlimeError("engine.unavailable", `${what}: ${reason}`, { engine: this.url, reason }, { cause: error });
    }
  }

  async close(): Promise<void> {
    // Calls under way end by their own deadlines, or now.
    await this.#pool.destroy();
  }
}

/** The words of a refusal in any of the shapes servers use: `{error:{message}}`, `{error}`, `{message}`, `{detail}`, or plain text. */
export function refusalText(body: Buffer): string {
  const text = body.subarray(0, 16_384).toString("utf8");
  try {
    const json: unknown = JSON.parse(text);
    if (typeof json === "object" && json !== null) {
      const fields = json as Readonly<Record<string, unknown>>;
      const error = fields["error"];
      const inner = typeof error === "object" && error !== null && "message" in error ? error.message : error;
      for (const value of [inner, fields["message"], fields["detail"]]) if (typeof value === "string" && value !== "") return value;
    }
  } catch {
    // Plain text.
  }
  return text.trim().slice(0, 500) || "no reason given";
}

/** A reply's JSON object. @throws `engine.unavailable` when it is none: whoever answered is not the server we mean. */
export function replyJson(url: string, reply: HttpReply): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(reply.body.toString("utf8"));
    if (typeof value === "object" && value !== null) return value as Readonly<Record<string, unknown>>;
  } catch (cause) {
    throw new SlimeError(
      "engine.unavailable",
      `${url} answered ${reply.status} with something that is not JSON`,
      { engine: url, reason: "not JSON" },
      { cause },
    );
  }
  throw new SlimeError("engine.unavailable", `${url} answered ${reply.status} with JSON that is no object`, {
    engine: url,
    reason: "no object",
  });
}
