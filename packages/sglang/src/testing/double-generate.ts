import type { ServerResponse } from "node:http";
import { encodeDouble } from "./double-model.js";
import { type DoubleCall, type Json, objectOf, sendInvalid, sendJson } from "./double-replies.js";
import { type DoubleJob, jobSpans } from "./double-scheduler.js";
import type { DoubleServer } from "./double-server.js";

/** Keys of sampling_params that SGLang 0.5.15 to 0.5.23 knows; any other is a TypeError there. */
const samplingKeys: ReadonlySet<string> = new Set(
  (
    "max_new_tokens stop stop_token_ids stop_regex temperature top_p top_k min_p frequency_penalty presence_penalty repetition_penalty " +
    "min_new_tokens n json_schema regex ebnf structural_tag ignore_eos skip_special_tokens spaces_between_special_tokens no_stop_trim " +
    "custom_params stream_interval logit_bias sampling_seed"
  ).split(" "),
);

let requests = 0;

/** POST /generate of one prompt. */
export async function generateRoute(double: DoubleServer, { text, response }: DoubleCall): Promise<void> {
  const body = objectOf(text);
  if (body === null) return sendInvalid(response, "the body is no JSON object");
  const params = (body["sampling_params"] ?? {}) as Json;
  if (Object.keys(params).some((key) => !samplingKeys.has(key)) || typeof (params["max_new_tokens"] ?? 128) !== "number")
    return void response.writeHead(500, { "content-type": "text/plain", connection: "close" }).end("Internal Server Error");
  const inputIds = idsOf(body);
  const stream = body["stream"] === true;
  if (inputIds === null) return refuse(response, stream, "Either text, input_ids or input_embeds should be provided.");
  let end: () => void = () => {};
  const finished = new Promise<void>((resolve) => {
    end = resolve;
  });
  const job = jobOf(body, params, inputIds, () => end());
  const problem = problemOf(double, job);
  if (problem !== null) return refuse(response, stream, problem);
  response.on("close", () => {
    if (!response.writableFinished) double.scheduler.abort(job.rid);
  });
  const withLogProbs = body["return_logprob"] === true;
  if (stream) return streamReply(double, job, withLogProbs, response, Number(params["stream_interval"] ?? 1));
  double.scheduler.submit(job);
  await finished;
  sendJson(response, 200, replyOf(double, job, withLogProbs));
}

function streamReply(double: DoubleServer, bare: DoubleJob, withLogProbs: boolean, response: ServerResponse, interval: number): void {
  const send = (job: DoubleJob) => {
    const due = interval > 1 ? job.outputIds.length % interval === 1 : true;
    if (response.destroyed || (job.finish === null && !due)) return;
    response.write(`data: ${JSON.stringify(replyOf(double, job, withLogProbs))}\n\n`);
    if (job.finish !== null) response.end("data: [DONE]\n\n");
  };
  const job: DoubleJob = { ...bare, progressed: () => send(job) };
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
  response.flushHeaders();
  double.scheduler.submit(job);
}

/** A stream is refused within: its status is 200. */
function refuse(response: ServerResponse, stream: boolean, message: string): void {
  if (!stream) return sendJson(response, 400, { error: { message, type: "BadRequestError", param: null, code: 400 } });
  const error = { message, type: "invalid_request_error", code: 400, retryable: false };
  response
    .writeHead(200, { "content-type": "text/event-stream; charset=utf-8" })
    .end(`data: ${JSON.stringify({ error })}\n\ndata: [DONE]\n\n`);
}

function idsOf(body: Json): readonly number[] | null {
  if (typeof body["text"] === "string") return encodeDouble(body["text"]);
  const ids = body["input_ids"];
  return Array.isArray(ids) && ids.length > 0 && ids.every((id) => typeof id === "number") ? (ids as readonly number[]) : null;
}

function jobOf(body: Json, params: Json, inputIds: readonly number[], ended: () => void): DoubleJob {
  const number = (name: string, fallback: number) => (typeof params[name] === "number" ? params[name] : fallback);
  const list = <T>(value: unknown): readonly T[] => (Array.isArray(value) ? (value as readonly T[]) : value == null ? [] : [value as T]);
  const job: DoubleJob = {
    rid: typeof body["rid"] === "string" ? body["rid"] : `double-${requests++}`,
    inputIds,
    maxNewTokens: number("max_new_tokens", 128),
    minNewTokens: number("min_new_tokens", 0),
    temperature: number("temperature", 1),
    topK: number("top_k", -1),
    topP: number("top_p", 1),
    stop: list<string>(params["stop"]),
    stopTokenIds: list<number>(params["stop_token_ids"]),
    ignoreEos: params["ignore_eos"] === true,
    noStopTrim: params["no_stop_trim"] === true,
    logProbsFrom: body["return_logprob"] === true && typeof body["logprob_start_len"] === "number" ? body["logprob_start_len"] : -1,
    outputIds: [],
    outputLogProbs: [],
    inputLogProbs: [],
    events: [],
    retractions: 0,
    finish: null,
    text: "",
    progressed: () => {
      if (job.finish !== null) ended();
    },
  };
  return job;
}

function problemOf({ scheduler, contextLength }: DoubleServer, job: DoubleJob): string | null {
  const { inputIds, maxNewTokens, minNewTokens, temperature, topP } = job;
  if (inputIds.length > contextLength)
    return `The input (${inputIds.length} tokens) is longer than the model's context length (${contextLength} tokens).`;
  if (inputIds.length + maxNewTokens > contextLength)
    return `Requested token count exceeds the model's maximum context length of ${contextLength} tokens.`;
  if (temperature < 0) return `temperature must be non-negative, got ${temperature}.`;
  if (!(topP > 0 && topP <= 1)) return `top_p must be in (0, 1], got ${topP}.`;
  if (maxNewTokens < 0) return `max_new_tokens must be at least 0, got ${maxNewTokens}.`;
  if (minNewTokens > maxNewTokens) return `min_new_tokens must be in [0, max_new_tokens(${maxNewTokens})], got ${minNewTokens}.`;
  return scheduler.has(job.rid) ? `Duplicate request ID detected: ${job.rid}` : null;
}

function replyOf(double: DoubleServer, job: DoubleJob, withLogProbs: boolean): Json {
  const { weightVersion, newer } = double;
  const spans = jobSpans(job, weightVersion);
  return {
    text: job.text,
    output_ids: job.outputIds,
    meta_info: {
      id: job.rid,
      finish_reason: job.finish,
      prompt_tokens: job.inputIds.length,
      completion_tokens: job.outputIds.length,
      cached_tokens: 0,
      cached_tokens_details: null,
      weight_version: weightVersion,
      ...(newer ? { weight_versions: spans } : {}),
      num_retractions: job.retractions,
      ...(withLogProbs
        ? {
            output_token_logprobs: job.outputIds.map((id, i) => [job.outputLogProbs[i], id, null]),
            output_token_logprobs_length: job.outputIds.length,
            input_token_logprobs: job.inputLogProbs.map((value, i) => [value, job.inputIds[job.logProbsFrom + i], null]),
          }
        : {}),
      reasoning_tokens: 0,
      dp_rank: null,
      e2e_latency: 0,
    },
  };
}
