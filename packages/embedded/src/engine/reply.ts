import type { EngineContext } from "./options.js";
import type { Sequence } from "./sequence.js";
import type { EngineTokenizer } from "./tokenizer.js";

export interface ReplyShape {
  readonly tokenizer: EngineTokenizer | null;
  readonly clock: EngineContext["clock"];
  readonly returnPromptTokenIds: boolean;
  /** Place in a list's stream; null otherwise. */
  readonly index: number | null;
}

/**
 * One object of /generate's reply, in SGLang's shape; while the sequence runs, a stream's cumulative chunk.
 * Beyond SGLang's fields: `weight_version_spans`, [version, from, to) of the output, the engine's own record of what sampled each token.
 */
export function replyObject(sequence: Sequence, shape: ReplyShape): Readonly<Record<string, unknown>> {
  const { job, state } = sequence;
  const ended = state.kind === "finished";
  const now = sequence.endedMs ?? shape.clock.nowMs();
  const decodeMs = sequence.firstTokenMs === null ? 0 : now - sequence.firstTokenMs;
  const reason = ended ? state.reason : null;
  return {
    ...(shape.index === null ? {} : { index: shape.index }),
    text: ended ? sequence.finalText(shape.tokenizer) : sequence.growingText,
    output_ids: sequence.outputIds,
    ...(shape.returnPromptTokenIds ? { prompt_token_ids: job.inputIds } : {}),
    meta_info: {
      id: job.rid,
      finish_reason: reason === null ? null : reason.type === "abort" ? { ...reason, status_code: null, err_type: null } : reason,
      prompt_tokens: job.inputIds.length,
      completion_tokens: sequence.outputIds.length,
      cached_tokens: 0,
      cached_tokens_details: null,
      weight_version: sequence.weightVersion,
      weight_version_spans: sequence.spans.map(({ version, from, to }) => [version, from, to]),
      num_retractions: sequence.retractions,
      ...(job.returnLogProb
        ? {
            output_token_logprobs: sequence.outputLogProbs.map((logProb, i) => [logProb, sequence.outputIds[i], null]),
            output_token_logprobs_length: sequence.outputLogProbs.length,
            input_token_logprobs: sequence.inputLogProbs.map((logProb, i) => [logProb, job.inputIds[(job.logProbStart ?? 0) + i], null]),
          }
        : {}),
      dp_rank: null,
      e2e_latency: (now - sequence.receivedMs) / 1_000,
      queue_time: ((sequence.admittedMs ?? now) - sequence.receivedMs) / 1_000,
      decode_throughput: decodeMs > 0 ? (sequence.outputIds.length - 1) / (decodeMs / 1_000) : 0,
      request_received_ts: sequence.receivedWallMs / 1_000,
      ...(ended ? { request_finished_ts: (sequence.receivedWallMs + now - sequence.receivedMs) / 1_000 } : {}),
    },
  };
}
