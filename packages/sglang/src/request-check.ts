import type { GenerateRequest } from "@slime/backend";
import { SlimeError } from "@slime/core";

/** What requests are checked against. */
export interface RequestBounds {
  readonly vocabularySize: number;
  /** Longest sequence, prompt and response together. */
  readonly contextLength: number;
}

/** SGLang's names (0.5.15 to 0.5.23). It answers 500 to any other and drops the connection. */
const samplingKeys: ReadonlySet<string> = new Set([
  "custom_params",
  "ebnf",
  "frequency_penalty",
  "ignore_eos",
  "json_schema",
  "logit_bias",
  "max_new_tokens",
  "min_new_tokens",
  "min_p",
  "n",
  "no_stop_trim",
  "presence_penalty",
  "regex",
  "repetition_penalty",
  "sampling_seed",
  "skip_special_tokens",
  "spaces_between_special_tokens",
  "stop",
  "stop_regex",
  "stop_token_ids",
  "stream_interval",
  "structural_tag",
  "temperature",
  "top_k",
  "top_p",
]);

/**
 * Refuses a request that a stock server would die of (an id outside the vocabulary), answer 500 (an unknown sampling parameter) or refuse
 * itself; the text says what to change. @throws `engine.refused` with status 400, as a server that checks would.
 */
export function checkRequest(url: string, { input_ids, sampling_params }: GenerateRequest, bounds: RequestBounds): void {
  const reason =
    idProblem(input_ids, bounds.vocabularySize, "input_ids") ??
    idProblem(sampling_params.stop_token_ids ?? [], bounds.vocabularySize, "stop_token_ids") ??
    keyProblem(sampling_params) ??
    lengthProblem(input_ids.length, sampling_params, bounds.contextLength);
  if (reason !== null) throw new SlimeError("engine.refused", `a request to ${url}: ${reason}`, { engine: url, status: 400, reason });
}

function idProblem(ids: readonly number[], vocabulary: number, name: string): string | null {
  const at = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
  return at < 0 ? null : `${name}[${at}] is ${ids[at]}; ids are whole numbers from 0 to ${vocabulary - 1}, the model's vocabulary`;
}

function keyProblem(params: object): string | null {
  const unknown = Object.keys(params).filter((key) => !samplingKeys.has(key));
  return unknown.length === 0 ? null : `SGLang has no sampling parameter ${unknown.join(", ")}`;
}

function lengthProblem(
  prompt: number,
  { max_new_tokens, min_new_tokens = 0 }: GenerateRequest["sampling_params"],
  context: number,
): string | null {
  if (prompt === 0) return "input_ids is empty";
  if (prompt > context) return `the prompt's ${prompt} tokens are more than the model's context of ${context}`;
  if (min_new_tokens > max_new_tokens) return `min_new_tokens (${min_new_tokens}) is above max_new_tokens (${max_new_tokens})`;
  if (prompt + max_new_tokens > context)
    return `${prompt} prompt tokens and max_new_tokens ${max_new_tokens} are more than the model's context of ${context}`;
  return null;
}
