import type { Random } from "@slime/core";
import type { ModelConfig } from "../model-config.js";
import { type EngineLimits, refusal } from "./options.js";
import { childSeed } from "./sampling.js";
import type { GenerateJob } from "./sequence.js";
import type { EngineTokenizer } from "./tokenizer.js";

/** The body of POST /generate, checked: one job per prompt and choice. */
export interface GenerateCall {
  readonly jobs: readonly GenerateJob[];
  /** The reply is a list. */
  readonly list: boolean;
  readonly stream: boolean;
  readonly returnPromptTokenIds: boolean;
}

/** What the model and the engine allow. */
export interface RequestRules {
  readonly config: ModelConfig;
  readonly tokenizer: EngineTokenizer | null;
  readonly limits: EngineLimits;
  readonly random: Random;
  /** Seed of the next request that brings none. */
  readonly nextSeed: () => number;
}

type Json = Readonly<Record<string, unknown>>;

/** Keys of sampling_params that are read, taken without effect, or refused unless they hold the value that means "off". */
const readKeys = [
  "max_new_tokens",
  "min_new_tokens",
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "stop",
  "stop_token_ids",
  "ignore_eos",
  "skip_special_tokens",
  "no_stop_trim",
  "n",
  "sampling_seed",
  "stream_interval",
];
const inertKeys = ["spaces_between_special_tokens", "custom_params"];
const offValues: Json = {
  frequency_penalty: 0,
  presence_penalty: 0,
  repetition_penalty: 1,
  logit_bias: null,
  json_schema: null,
  regex: null,
  ebnf: null,
  structural_tag: null,
  stop_regex: null,
};
/** SGLang's default, or what the context has left. */
const maxNewTokensDefault = 128;

/** Checks a parsed body. @throws `engine.refused` 400 with the first thing that is wrong, in words that name the field. */
export function parseGenerate(body: unknown, rules: RequestRules): GenerateCall {
  const fields = object(body, "the request body");
  for (const key of ["top_logprobs_num", "token_ids_logprob", "image_data", "audio_data", "input_embeds", "lora_path", "session_params"]) {
    const value = fields[key] ?? null;
    if (value !== null && value !== 0 && value !== false)
      throw refusal(400, `${key} is not supported by the embedded engine; leave it out.`);
  }
  const prompts = readPrompts(fields, rules);
  const stream = flag(fields["stream"], "stream");
  const jobs: GenerateJob[] = [];
  let list = prompts.list;
  prompts.inputs.forEach((inputIds, i) => {
    const params = object(perItem(fields["sampling_params"], i, prompts.list) ?? {}, "sampling_params");
    const n = whole(params["n"] ?? 1, "n", 1);
    if (n > 1) list = true;
    if (jobs.length + n > rules.limits.batchMax)
      throw refusal(400, `The request has more than ${rules.limits.batchMax} sequences (prompts times n); send several requests.`);
    const rid = readRid(fields["rid"], i, prompts.list, rules.random);
    const base = readJob(fields, params, inputIds, rid, i, prompts.list, rules);
    for (let choice = 0; choice < n; choice++) {
      jobs.push(
        n === 1 ? base : { ...base, rid: `${rid}_${choice}`, sampling: { ...base.sampling, seed: childSeed(base.sampling.seed, choice) } },
      );
    }
  });
  return { jobs, list, stream, returnPromptTokenIds: flag(fields["return_prompt_token_ids"], "return_prompt_token_ids") };
}

function readPrompts(fields: Json, rules: RequestRules): { readonly inputs: readonly (readonly number[])[]; readonly list: boolean } {
  const { input_ids: ids, text } = fields;
  const given = [ids, text].filter((value) => value !== undefined && value !== null);
  if (given.length !== 1) throw refusal(400, "Either text or input_ids should be provided, and only one of them.");
  const list = Array.isArray(given[0]) && (text !== undefined && text !== null ? true : Array.isArray((given[0] as readonly unknown[])[0]));
  const items: readonly unknown[] = list ? (given[0] as readonly unknown[]) : given;
  if (items.length === 0) throw refusal(400, "The request holds no prompt: text and input_ids must not be empty.");
  if (items.length > rules.limits.batchMax)
    throw refusal(400, `The request holds ${items.length} prompts, more than ${rules.limits.batchMax}; send several requests.`);
  return {
    inputs: items.map((item) =>
      text !== undefined && text !== null
        ? encode(item, rules)
        : tokenIds(item, "input_ids", rules.config.vocabSize, rules.config.positionsMax),
    ),
    list,
  };
}

function encode(text: unknown, { tokenizer, config }: RequestRules): readonly number[] {
  if (tokenizer === null) throw refusal(400, "text needs a tokenizer and the model's directory has no tokenizer.json; send input_ids.");
  if (typeof text !== "string") throw refusal(400, "text must be a string or a list of strings.");
  // A token is at least one character almost everywhere; far longer texts are not worth tokenising first.
  if (text.length > config.positionsMax * 64)
    throw refusal(400, `The input (${text.length} characters) is longer than the model's context length (${config.positionsMax} tokens).`);
  const ids = tokenizer.encode(text);
  if (ids.length === 0) throw refusal(400, "The prompt is empty: text gave no token.");
  return tokenIds(ids, "text", config.vocabSize, config.positionsMax);
}

function tokenIds(value: unknown, name: string, vocabSize: number, lengthMax: number): readonly number[] {
  if (!Array.isArray(value) || value.length === 0) throw refusal(400, `${name} must be a list of token ids, not empty.`);
  if (value.length > lengthMax)
    throw refusal(400, `The input (${value.length} tokens) is longer than the model's context length (${lengthMax} tokens).`);
  value.forEach((id: unknown, at) => {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw refusal(400, `${name}[${at}] is ${JSON.stringify(id)?.slice(0, 40)}, not a token id below the vocabulary's size ${vocabSize}.`);
    }
  });
  return value as readonly number[];
}

function readRid(rid: unknown, i: number, list: boolean, random: Random): string {
  const given = Array.isArray(rid) ? rid[i] : typeof rid === "string" && list ? `${rid}_${i}` : rid;
  if (given === undefined || given === null) return Buffer.from(random.bytes(16)).toString("hex");
  if (typeof given !== "string" || given === "" || given.length > 256)
    throw refusal(400, "rid must be a string of 1 to 256 characters, or a list of them, one per prompt.");
  return given;
}

function readJob(
  fields: Json,
  params: Json,
  inputIds: readonly number[],
  rid: string,
  i: number,
  list: boolean,
  rules: RequestRules,
): GenerateJob {
  checkKeys(params);
  const { config, tokenizer } = rules;
  const room = config.positionsMax - inputIds.length;
  const maxNewTokens = whole(params["max_new_tokens"] ?? Math.max(1, Math.min(maxNewTokensDefault, room)), "max_new_tokens", 0);
  const minNewTokens = whole(params["min_new_tokens"] ?? 0, "min_new_tokens", 0);
  if (minNewTokens > maxNewTokens)
    throw refusal(400, `min_new_tokens must be in [0, max_new_tokens(${maxNewTokens})], got ${minNewTokens}.`);
  if (maxNewTokens > room) {
    const total = inputIds.length + maxNewTokens;
    throw refusal(
      400,
      `Requested token count exceeds the model's maximum context length of ${config.positionsMax} tokens: ${inputIds.length} of the input and ${maxNewTokens} of max_new_tokens make ${total}.`,
    );
  }
  const stop = strings(params["stop"]);
  if (stop.length > 0 && tokenizer === null)
    throw refusal(400, "stop strings need a tokenizer and the model's directory has no tokenizer.json; use stop_token_ids.");
  const ownStops = params["stop_token_ids"] ?? null;
  const stopIds =
    ownStops === null || (Array.isArray(ownStops) && ownStops.length === 0)
      ? []
      : tokenIds(ownStops, "stop_token_ids", config.vocabSize, config.vocabSize);
  const returnLogProb = flag(perItem(fields["return_logprob"], i, list), "return_logprob");
  const start = whole(perItem(fields["logprob_start_len"], i, list) ?? -1, "logprob_start_len", -1);
  if (start > inputIds.length) throw refusal(400, `logprob_start_len (${start}) is beyond the input (${inputIds.length} tokens).`);
  return {
    rid,
    inputIds,
    sampling: readSampling(params, rules),
    maxNewTokens,
    minNewTokens,
    stop,
    stopIds: flag(params["ignore_eos"], "ignore_eos") ? [] : [...new Set([...config.eosTokenIds, ...stopIds])],
    skipSpecialTokens: flag(params["skip_special_tokens"] ?? true, "skip_special_tokens"),
    noStopTrim: flag(params["no_stop_trim"], "no_stop_trim"),
    returnLogProb,
    logProbStart: returnLogProb && start >= 0 && start < inputIds.length ? start : null,
    streamInterval: whole(params["stream_interval"] ?? 1, "stream_interval", 1),
  };
}

function readSampling(params: Json, rules: RequestRules): GenerateJob["sampling"] {
  const temperature = real(params["temperature"] ?? 1, "temperature");
  if (temperature < 0) throw refusal(400, `temperature must be non-negative, got ${temperature}.`);
  const topP = real(params["top_p"] ?? 1, "top_p");
  if (!(topP > 0 && topP <= 1)) throw refusal(400, `top_p must be in (0, 1], got ${topP}.`);
  const minP = real(params["min_p"] ?? 0, "min_p");
  if (!(minP >= 0 && minP <= 1)) throw refusal(400, `min_p must be in [0, 1], got ${minP}.`);
  const topK = whole(params["top_k"] ?? -1, "top_k", -1);
  if (topK === 0) throw refusal(400, "top_k must be -1 (disable), or at least 1.");
  const given = params["sampling_seed"] ?? null;
  if (given !== null && !Number.isSafeInteger(given)) throw refusal(400, "sampling_seed must be a whole number of at most 53 bits.");
  // Colder than this, logits / temperature overflows single precision: the choice is the greedy one.
  return {
    temperature: temperature < 1e-6 ? 0 : temperature,
    topP,
    topK: topK < 0 ? null : topK,
    minP,
    seed: typeof given === "number" ? given : rules.nextSeed(),
  };
}

function checkKeys(params: Json): void {
  for (const [key, value] of Object.entries(params)) {
    if (readKeys.includes(key) || inertKeys.includes(key)) continue;
    if (!Object.hasOwn(offValues, key))
      throw refusal(
        400,
        `Unexpected keyword ${JSON.stringify(key.slice(0, 80))} in sampling_params; known are ${[...readKeys, ...inertKeys].join(", ")}.`,
      );
    if (value !== null && value !== offValues[key]) throw refusal(400, `${key} is not supported by the embedded engine; leave it out.`);
  }
}

function perItem(value: unknown, i: number, list: boolean): unknown {
  return list && Array.isArray(value) ? (value as readonly unknown[])[i] : value;
}

/** A JSON object's fields. @throws `engine.refused` 400. */
export function object(value: unknown, name: string): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw refusal(400, `${name} must be a JSON object.`);
}

/** A JSON boolean; absent and null mean false. @throws `engine.refused` 400. */
export function flag(value: unknown, name: string): boolean {
  if (value === undefined || value === null) return false;
  if (typeof value === "boolean") return value;
  throw refusal(400, `${name} must be true or false.`);
}

function real(value: unknown, name: string): number {
  if (typeof value === "number" && Number.isFinite(value)) return value;
  throw refusal(400, `${name} must be a number.`);
}

function whole(value: unknown, name: string, min: number): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= min) return value;
  throw refusal(400, `${name} must be a whole number of at least ${min}, got ${JSON.stringify(value)?.slice(0, 40)}.`);
}

function strings(value: unknown): readonly string[] {
  const list: readonly unknown[] = value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];
  if (list.length > 64 || !list.every((item): item is string => typeof item === "string" && item.length > 0 && item.length <= 1024)) {
    throw refusal(400, "stop must be a string or a list of at most 64 strings, each of 1 to 1024 characters.");
  }
  return list;
}
