import type { GenerateResult } from "@slime/backend";
import { type Clock, SlimeError } from "@slime/core";
import { HttpClient, type ParsedReply, parseReply, refusalText, replyJson, SseEvents } from "@slime/router";
import type { EncodedPrompt } from "./prompts.js";
import type { SamplingFlags } from "./settings.js";

/** One answer to be asked for. */
export interface Question {
  readonly prompt: EncodedPrompt;
  readonly sampling: SamplingFlags;
  /** Null: the engine's own chance. */
  readonly seed: number | null;
  readonly logProbs: boolean;
}

export type Answer = Omit<GenerateResult, "weightSpans">;

/** Waits for answers of one engine or router, over SGLang's /generate. */
export class Asker implements AsyncDisposable {
  readonly #http: HttpClient;
  readonly #timeoutMs: number;

  constructor(url: string, options: { readonly clock: Clock; readonly timeoutMs: number }) {
    this.#http = new HttpClient(url, options.clock);
    this.#timeoutMs = options.timeoutMs;
  }

  /**
   * One answer. @param onText gets the text so far, as it grows; it may end within a stop string that the answer then ends before.
   * @throws SlimeError `engine.refused`, `engine.unavailable`, the signal's reason.
   */
  async ask(question: Question, signal: AbortSignal, onText: ((text: string) => void) | null): Promise<Answer> {
    const { prompt, sampling, seed, logProbs } = question;
    const json = {
      ...(prompt.inputIds === null ? { text: prompt.text } : { input_ids: prompt.inputIds }),
      sampling_params: { ...sampling, max_new_tokens: prompt.maxNewTokens, ...(seed === null ? {} : { sampling_seed: seed }) },
      return_logprob: logProbs,
      ...(onText === null ? {} : { stream: true }),
    };
    const stream = onText === null ? null : new ReplyStream(this.#http.url, onText);
    const reply = await this.#http.call({
      method: "POST",
      path: "/generate",
      json,
      timeoutMs: this.#timeoutMs,
      signal,
      ...(stream === null ? {} : { onChunk: (chunk: Buffer) => stream.take(chunk) }),
    });
    if (reply.status !== 200) throw this.#refused(reply.status, refusalText(reply.body));
    const {
      finishReason,
      weightSpans: _,
      ...rest
    } = stream === null ? parseReply(this.#http.url, replyJson(this.#http.url, reply)) : stream.whole();
    if (finishReason === null) throw broken(this.#http.url, "ended its answer without a finish_reason");
    return { ...rest, finishReason };
  }

  /** A JSON object of one of the engine's pages; null where it has none. @throws SlimeError `engine.unavailable` when nobody is there. */
  async page(path: string): Promise<Readonly<Record<string, unknown>> | null> {
    const reply = await this.#http.call({ method: "GET", path, timeoutMs: Math.min(this.#timeoutMs, 10_000) });
    return reply.status === 200 ? replyJson(this.#http.url, reply) : null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#http.close();
  }

  #refused(status: number, reason: string): SlimeError {
    return new SlimeError("engine.refused", `${this.#http.url} answers ${status}: ${reason}`, { engine: this.#http.url, status, reason });
  }
}

/** The chunks of one stream; each repeats all before it. */
class ReplyStream {
  readonly #url: string;
  readonly #onText: (text: string) => void;
  readonly #events = new SseEvents();
  #last: ParsedReply | null = null;

  constructor(url: string, onText: (text: string) => void) {
    this.#url = url;
    this.#onText = onText;
  }

  take(chunk: Buffer): void {
    for (const data of this.#events.take(chunk)) {
      if (data === "[DONE]") continue;
      const json = parsed(data);
      if (json === null) throw broken(this.#url, "streamed something that is no JSON object");
      if ("error" in json && !("meta_info" in json)) throw broken(this.#url, `broke off: ${refusalText(Buffer.from(data))}`);
      this.#last = parseReply(this.#url, json);
      this.#onText(this.#last.text);
    }
  }

  whole(): ParsedReply {
    if (this.#last === null) throw broken(this.#url, "ended its stream without an answer");
    return this.#last;
  }
}

function parsed(text: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : null;
  } catch {
    return null;
  }
}

function broken(url: string, what: string): SlimeError {
  return new SlimeError("engine.unavailable", `${url} ${what}`, { engine: url, reason: what });
}
