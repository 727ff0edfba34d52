import { request as httpRequest } from "node:http";
import { type Clock, invariant, systemClock } from "@slime/core";
import type { Engine, GenerateRequest, GenerateResult, SamplingParams, WeightUpdate } from "../engine.js";

/** What servers of this family differ in. */
export interface EngineAbilities {
  /** `sampling_seed` decides the tokens, and a request gives the same bits alone and among others. */
  readonly seeds: boolean;
  /** Replies hold the engine's own record of which tokens came from which weights. */
  readonly spans: boolean;
  /** A token id beyond the vocabulary is refused. SGLang 0.5 dies of it. */
  readonly checksIds: boolean;
  /** Unless flushed, prompts are read by what the weights before an update left of them: SGLang's radix cache. */
  readonly keepsPrefixes: boolean;
  /** Log-probs of the same tokens, once sampled and once scored, differ by at most this: 1e-6 where the arithmetic is one, 0.1 in bf16. */
  readonly logProbDifferenceMax: number;
}

/** An engine as the suite drives it. One is started for the whole suite, since a real server takes a minute. */
export interface EngineSubject extends AsyncDisposable {
  readonly engine: Engine;
  /** Token ids stay below this. */
  readonly vocabulary: number;
  /** Longest sequence, prompt and response together. At least 256, and long enough that `longTokens` outlast a few round trips. */
  readonly contextLength: number;
  /** New tokens of a request that must still run when a pause or abort arrives. */
  readonly longTokens: number;
  /** Text to ids; null: the server has no tokenizer, so no text and no stop strings. */
  readonly encode: ((text: string) => readonly number[]) | null;
  /** Lays out weights that only this version has, whole and ready to be loaded; null where the subject cannot. */
  readonly weights: ((version: number) => Promise<WeightUpdate["source"]>) | null;
  /** Ends the server; null where the subject cannot. */
  readonly kill: (() => Promise<void>) | null;
  readonly can: EngineAbilities;
}

/** A long request under way. */
export interface Flight {
  readonly rid: string;
  /** Resolves with its first token. */
  readonly begun: Promise<void>;
  readonly done: Promise<GenerateResult>;
  readonly settled: () => boolean;
}

export interface RawReply {
  readonly status: number;
  readonly contentType: string;
  readonly text: string;
}

const callMs = 60_000;
const idleMsMax = 20_000;

/** The suite's hands on a subject: requests with defaults, long flights, and the bare HTTP routes where the port is silent. */
export class EngineProbe {
  readonly subject: EngineSubject;
  readonly engine: Engine;
  readonly #clock: Clock;
  #requests = 0;
  #version = 100;

  constructor(subject: EngineSubject, clock: Clock = systemClock) {
    this.subject = subject;
    this.engine = subject.engine;
    this.#clock = clock;
  }

  /** A rid of its own for every request. */
  rid(): string {
    return `conformance-${this.#requests++}`;
  }

  /** A version that nobody had before. */
  nextVersion(): number {
    return this.#version++;
  }

  /** Prompt number `at`: a few ids of the vocabulary, other for every number. The lowest ids are left out: they may be special. */
  prompt(at = 0): readonly number[] {
    const room = this.subject.vocabulary - 4;
    return [3 + ((at * 5) % room), 3 + ((at * 11 + 2) % room), 3 + ((at * 3 + 1) % room)];
  }

  request(params: Partial<SamplingParams> = {}, fields: Partial<GenerateRequest> = {}): GenerateRequest {
    return {
      rid: this.rid(),
      input_ids: this.prompt(),
      return_logprob: true,
      sampling_params: { temperature: 0, top_p: 1, top_k: -1, max_new_tokens: 8, ignore_eos: true, ...params },
      ...fields,
    };
  }

  /** Greedy, eight tokens, past any end of sequence, with log-probs, unless told otherwise. */
  generate(params: Partial<SamplingParams> = {}, fields: Partial<GenerateRequest> = {}): Promise<GenerateResult> {
    return this.engine.generate(this.request(params, fields), { timeoutMs: callMs });
  }

  /** Log-probs of tokens 1… of a text at temperature 1, as the engine scores them. */
  async score(tokens: readonly number[]): Promise<readonly number[]> {
    const { inputLogProbs } = await this.generate({ temperature: 1, max_new_tokens: 0 }, { input_ids: tokens, logprob_start_len: 0 });
    return inputLogProbs.slice(1).map((logProb) => logProb ?? Number.NaN);
  }

  /** Starts a request of `longTokens` greedy tokens. */
  fly(options: { readonly signal?: AbortSignal; readonly fields?: Partial<GenerateRequest> } = {}): Flight {
    const request = this.request({ max_new_tokens: this.subject.longTokens }, options.fields);
    let begin: () => void = () => {};
    let settled = false;
    const first = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const signal = options.signal === undefined ? {} : { signal: options.signal };
    const done = this.engine.generate(request, { timeoutMs: callMs, onTokens: (count) => void (count > 0 && begin()), ...signal });
    const begun = Promise.race([first, done.then(() => {})]);
    // Whoever waits for `done` gets its failure; nobody has to.
    for (const each of [begun, done])
      each.then(
        () => {},
        () => {},
      );
    void done
      .catch(() => {})
      .then(() => {
        settled = true;
      });
    return { rid: request.rid, begun, done, settled: () => settled };
  }

  /** A few round trips to the server: what was going to happen at once has happened then. */
  async roundTrips(): Promise<void> {
    for (let i = 0; i < 4; i++) await this.engine.load();
  }

  /** Tokens that the engine makes while a few round trips pass: none while it is paused. */
  async progress(): Promise<number> {
    await this.roundTrips();
    const before = await this.engine.load();
    await this.roundTrips();
    return (await this.engine.load()).tokensTotal - before.tokensTotal;
  }

  /** Waits until nothing runs and nothing waits. */
  async idle(): Promise<void> {
    await this.until("the engine is idle", async () => {
      const { running, waiting } = await this.engine.load();
      return running + waiting === 0;
    });
  }

  /** Asks again and again, for at most 20 s. */
  async until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const end = this.#clock.nowMs() + idleMsMax;
    while (!(await holds())) invariant(this.#clock.nowMs() < end, `within ${idleMsMax} ms: ${what}`);
  }

  /** Back to a server that runs and has nothing to do. */
  async rest(): Promise<void> {
    await this.engine.resume();
    await this.engine.abort({ all: true });
    await this.idle();
  }

  post(path: string, body: unknown): Promise<RawReply> {
    return this.#http("POST", path, typeof body === "string" ? body : JSON.stringify(body));
  }

  get(path: string): Promise<RawReply> {
    return this.#http("GET", path, null);
  }

  /** A connection of its own for each call: a server may drop the one it answered an error on. */
  #http(method: string, path: string, body: string | null): Promise<RawReply> {
    return new Promise((resolve, reject) => {
      const headers = body === null ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
      const request = httpRequest(new URL(path, this.engine.url), { method, headers, agent: false, timeout: callMs }, (reply) => {
        const chunks: Buffer[] = [];
        reply.on("data", (chunk: Buffer) => chunks.push(chunk));
        reply.on("error", reject);
        reply.on("end", () =>
          resolve({
            status: reply.statusCode ?? 0,
            contentType: reply.headers["content-type"] ?? "",
            text: Buffer.concat(chunks).toString("utf8"),
          }),
        );
      });
      request.on("error", reject);
      request.end(body ?? undefined);
    });
  }
}

/** The failure of a call that must fail. */
export async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("expected a rejection");
}
