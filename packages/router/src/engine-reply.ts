import type { FinishReason, GenerateResult, WeightSpan } from "@slime/backend";
import { SlimeError } from "@slime/core";

type Json = Readonly<Record<string, unknown>>;

/** What one object of /generate says; a stream's chunk says as much, so far. */
export interface ParsedReply extends Omit<GenerateResult, "finishReason" | "weightSpans"> {
  /** Null while the sequence runs. */
  readonly finishReason: FinishReason | null;
  /** The engine's own record, or null where it keeps none. */
  readonly weightSpans: readonly WeightSpan[] | null;
}

/**
 * Reads an object of /generate in SGLang's shape. It is another process's word, so every field is looked at.
 * @throws `engine.unavailable` when it is not such an object: the text names what is missing.
 */
export function parseReply(url: string, json: Json): ParsedReply {
  const bad = (what: string) =>
    new SlimeError("engine.unavailable", `${url} answered /generate without ${what}`, { engine: url, reason: `no ${what}` });
  const meta = record(json["meta_info"]);
  if (meta === null) throw bad("meta_info");
  const pairs = meta["output_token_logprobs"] === undefined ? [] : logProbs(meta["output_token_logprobs"]);
  if (pairs === null) throw bad("a list of output_token_logprobs");
  const inputs = meta["input_token_logprobs"] === undefined ? [] : logProbs(meta["input_token_logprobs"]);
  if (inputs === null) throw bad("a list of input_token_logprobs");
  const ids = json["output_ids"] === undefined ? pairs.map(({ id }) => id) : numbers(json["output_ids"]);
  if (ids === null) throw bad("output_ids");
  if (pairs.length > 0 && pairs.length !== ids.length)
    throw bad(`as many output_token_logprobs (${pairs.length}) as output_ids (${ids.length})`);
  return {
    text: typeof json["text"] === "string" ? json["text"] : "",
    outputIds: ids,
    outputLogProbs: pairs.map(({ logProb }) => logProb ?? Number.NaN),
    inputLogProbs: inputs.map(({ logProb }) => logProb),
    finishReason: finishReason(record(meta["finish_reason"])),
    weightVersion: String(meta["weight_version"] ?? "default"),
    weightSpans: spansOf(meta["weight_version_spans"] ?? meta["weight_versions"], ids.length),
    promptTokens: typeof meta["prompt_tokens"] === "number" ? meta["prompt_tokens"] : 0,
    cachedTokens: typeof meta["cached_tokens"] === "number" ? meta["cached_tokens"] : 0,
  };
}

/** Versions are whole numbers as text; a stock server's "default" is the weights it started with: 0. */
export function versionNumber(version: string): number {
  return /^\d{1,15}$/.test(version) ? Number(version) : 0;
}

/**
 * Counts tokens per version from a stream's chunks: ours where the server keeps no record. A chunk names the version at the time it was
 * sent; where that changed, a chunk of several new tokens may hold some of the version before: they are `mixed`, under the older version.
 */
export class SpanCounter {
  readonly #spans: WeightSpan[] = [];
  #version: number | null = null;

  count(tokens: number, version: string): void {
    const last = this.#spans.at(-1);
    const from = last?.to ?? 0;
    const before = this.#version ?? versionNumber(version);
    if (tokens <= from) return;
    this.#version = versionNumber(version);
    const mixed = before !== this.#version && tokens - from > 1;
    const span = { version: mixed ? before : this.#version, from, to: tokens, mixed };
    if (last !== undefined && last.version === span.version && !last.mixed && !mixed)
      this.#spans[this.#spans.length - 1] = { ...last, to: tokens };
    else this.#spans.push(span);
  }

  get spans(): readonly WeightSpan[] {
    return this.#spans;
  }
}

function finishReason(fields: Json | null): FinishReason | null {
  switch (fields?.["type"]) {
    case "length":
      return { type: "length", length: typeof fields["length"] === "number" ? fields["length"] : 0 };
    case "stop": {
      const matched = fields["matched"];
      return { type: "stop", matched: typeof matched === "number" || typeof matched === "string" ? matched : null };
    }
    case "abort":
      return { type: "abort", message: typeof fields["message"] === "string" ? fields["message"] : "Aborted" };
    default:
      return null;
  }
}

function logProbs(value: unknown): readonly { readonly logProb: number | null; readonly id: number }[] | null {
  if (!Array.isArray(value)) return null;
  const out: { logProb: number | null; id: number }[] = [];
  for (const item of value as readonly unknown[]) {
    const [logProb, id] = Array.isArray(item) ? (item as readonly unknown[]) : [];
    if ((typeof logProb !== "number" && logProb !== null) || typeof id !== "number") return null;
    out.push({ logProb, id });
  }
  return out;
}

function spansOf(value: unknown, tokens: number): readonly WeightSpan[] | null {
  if (!Array.isArray(value)) return null;
  const out: WeightSpan[] = [];
  for (const item of value as readonly unknown[]) {
    const [version, from, to] = numbers(item) ?? spanFields(record(item));
    if (version === undefined || from !== (out.at(-1)?.to ?? 0) || to === undefined || to <= from) return null;
    out.push({ version, from, to, mixed: false });
  }
  return (out.at(-1)?.to ?? 0) === tokens ? out : null;
}

/** SGLang 0.5.23 writes `{version, start, end}`. */
function spanFields(item: Json | null): readonly number[] {
  return numbers([versionNumber(String(item?.["version"])), item?.["start"], item?.["end"]]) ?? [];
}

function numbers(value: unknown): readonly number[] | null {
  return Array.isArray(value) && value.every((item) => typeof item === "number") ? (value as readonly number[]) : null;
}

function record(value: unknown): Json | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : null;
}
