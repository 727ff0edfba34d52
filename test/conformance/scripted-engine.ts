import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import type {
  Engine,
  FinishReason,
  GenerateRequest,
  GenerateResult,
  PauseMode,
  WeightReceipt,
  WeightSpan,
  WeightUpdate,
} from "@slime/backend";
import { abortable, deadline, type SlimeError as Failure, SlimeError, systemClock } from "@slime/core";

export const scriptedVocabulary = 16;
const slopes = Array.from({ length: scriptedVocabulary }, (_, token) => Math.sin(1 + 2 * token));

/** What an export of the scripted gang is verified by. */
export function scriptedChecksum(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 16);
}

interface Running {
  readonly outputIds: number[];
  readonly logProbs: number[];
  readonly spans: WeightSpan[];
  aborted: boolean;
}

/**
 * The scripted gang's model as an engine, in memory: logit(t | p) = a[p] · sin(1 + 2t) + b[t], greedy. It takes the gang's own exports
 * (a, then b, in double precision) and nothing else, and counts a version for every token.
 */
export class ScriptedEngine implements Engine {
  readonly url: string;
  #weights = new Float64Array(2 * scriptedVocabulary);
  #version = 0;
  #paused: { readonly over: Promise<void>; readonly end: () => void } | null = null;
  readonly #running = new Map<string, Running>();
  #tokens = 0;

  constructor(url: string) {
    this.url = url;
  }

  async generate(request: GenerateRequest, options: Parameters<Engine["generate"]>[1]): Promise<GenerateResult> {
    using limit = deadline(systemClock, options.timeoutMs, `generate at ${this.url}`, options.signal);
    const running: Running = { outputIds: [], logProbs: [], spans: [], aborted: false };
    this.#running.set(request.rid, running);
    try {
      const finishReason = await this.#decode(request, running, limit.signal, options.onTokens);
      return {
        text: "",
        outputIds: running.outputIds,
        outputLogProbs: running.logProbs,
        inputLogProbs:
          request.logprob_start_len === 0
            ? request.input_ids.map((id, i) => (i === 0 ? null : (this.#logProbs(request.input_ids[i - 1])[id] ?? null)))
            : [],
        finishReason,
        weightVersion: String(running.spans.at(-1)?.version ?? this.#version),
        weightSpans: running.spans,
        promptTokens: request.input_ids.length,
        cachedTokens: 0,
      };
    } finally {
      this.#running.delete(request.rid);
    }
  }

  async #decode(
    request: GenerateRequest,
    running: Running,
    signal: AbortSignal,
    onTokens?: (count: number, version: string) => void,
  ): Promise<FinishReason> {
    const { outputIds, logProbs, spans } = running;
    while (outputIds.length < request.sampling_params.max_new_tokens) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      while (this.#paused !== null && !running.aborted) await abortable(this.#paused.over, signal);
      signal.throwIfAborted();
      if (running.aborted) return { type: "abort", message: "Aborted" };
      const distribution = this.#logProbs(outputIds.at(-1) ?? request.input_ids.at(-1));
      const logProb = Math.max(...distribution);
      outputIds.push(distribution.indexOf(logProb));
      logProbs.push(logProb);
      this.#tokens++;
      const span = spans.at(-1);
      if (span?.version === this.#version) spans[spans.length - 1] = { ...span, to: outputIds.length };
      else spans.push({ version: this.#version, from: outputIds.length - 1, to: outputIds.length, mixed: false });
      onTokens?.(outputIds.length, String(this.#version));
    }
    return { type: "length", length: outputIds.length };
  }

  #logProbs(previous = 0): readonly number[] {
    const logits = slopes.map(
      (slope, token) => (this.#weights[previous % scriptedVocabulary] ?? 0) * slope + (this.#weights[scriptedVocabulary + token] ?? 0),
    );
    const top = Math.max(...logits);
    const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
    return logits.map((logit) => logit - top - total);
  }

  async health(): Promise<void> {}

  async info() {
    return {
      url: this.url,
      modelPath: "bigram",
      weightVersion: String(this.#version),
      vocabularySize: scriptedVocabulary,
      contextLength: 1_024,
      server: "scripted",
    };
  }

  async load() {
    return { running: this.#running.size, waiting: 0, tokensTotal: this.#tokens };
  }

  async abort(target: { readonly rid: string } | { readonly all: true }): Promise<void> {
    for (const [rid, running] of this.#running) if ("all" in target || target.rid === rid) running.aborted = true;
    // Those that a pause holds must hear of it.
    const paused = this.#paused;
    if (paused === null) return;
    await this.resume();
    this.#pause();
  }

  async pause(mode: PauseMode): Promise<void> {
    if (this.#paused === null) this.#pause();
    if (mode === "abort") await this.abort({ all: true });
  }

  #pause(): void {
    let end: () => void = () => {};
    const over = new Promise<void>((resolve) => (end = resolve));
    this.#paused = { over, end };
  }

  async resume(): Promise<void> {
    const paused = this.#paused;
    this.#paused = null;
    paused?.end();
  }

  async flush(): Promise<void> {
    for (let turn = 0; turn < 8 && this.#running.size > 0; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
    if (this.#running.size > 0) throw this.#refusal("Flush cache failed: requests are held");
  }

  /** @throws `weights.mismatch`; the old weights stay then. */
  async updateWeights({ version, source }: WeightUpdate): Promise<WeightReceipt> {
    if (this.#paused === null && this.#running.size > 0) throw this.#refusal("pause first");
    const mismatch = (reason: string) =>
      new SlimeError("weights.mismatch", `${source.path}: ${reason}`, { engine: this.url, version, reason });
    const bytes = await readFile(source.path);
    if (bytes.length !== this.#weights.byteLength) throw mismatch(`${bytes.length} bytes instead of ${this.#weights.byteLength}`);
    const checksum = scriptedChecksum(bytes);
    if (source.kind === "shared-memory" && checksum !== source.checksum)
      throw mismatch(`checksum ${checksum} instead of ${source.checksum}`);
    this.#weights = new Float64Array(Uint8Array.from(bytes).buffer);
    this.#version = version;
    return { version: String(version), checksum };
  }

  async close(): Promise<void> {
    await this.abort({ all: true });
  }

  #refusal(reason: string): Failure {
    return new SlimeError("engine.refused", `${this.url}: ${reason}`, { engine: this.url, status: 400, reason });
  }
}
