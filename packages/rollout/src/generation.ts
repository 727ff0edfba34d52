import type { GenerateRequest, GenerateResult, SamplingParams, WeightSpan } from "@slime/backend";
import { type BackoffPolicy, backoffDelayMs, type Clock, factsOf, type Random, SlimeError, sleep } from "@slime/core";

/** The router as a rollout worker sees it. Rejections are SlimeErrors. */
export interface Generator {
  readonly generate: (
    request: GenerateRequest,
    options: { readonly signal: AbortSignal; readonly timeoutMs: number; readonly routingKey: string },
  ) => Promise<GenerateResult>;
}

export interface GenerationLimits {
  /** Prompt and response together never exceed this. */
  readonly contextLength: number;
  readonly requestMsMax: number;
  /** A request cut off by a push is taken up again this often, from the tokens it has. */
  readonly resumesMax: number;
  /** How a request is tried again when the router or its engine failed it; long enough for a router to come back. */
  readonly backoff: BackoffPolicy;
}

/** About 20 seconds in all: a router that died is back by then. */
export const routerBackoff: BackoffPolicy = { firstMs: 100, factor: 1.6, delayMsMax: 5_000, jitter: 0.2, triesMax: 12 };

/** One response, possibly made in several pieces by several versions of the weights. */
export interface Generated {
  readonly tokens: readonly number[];
  readonly logProbs: readonly number[];
  readonly text: string;
  readonly spans: readonly WeightSpan[];
  readonly finish: "stop" | "length";
}

/**
 * Generates one response and takes it up again from its tokens when an engine lets go of it.
 * G1: a resumed request asks for what is missing only, so a response never exceeds `max_new_tokens`.
 * G2: spans cover the tokens, piece by piece, each with the version that made it.
 * @throws what the router answered once resuming is used up, `call.cancelled` when `signal` aborts, `data.invalid` for a prompt without room.
 */
export async function generate(
  generator: Generator,
  job: {
    readonly rid: string;
    readonly prompt: readonly number[];
    /** Requests of one key share a beginning, so that an engine which had one knows the others'. */
    readonly routingKey: string;
    readonly sampling: SamplingParams;
    readonly limits: GenerationLimits;
    readonly signal: AbortSignal;
    readonly clock: Clock;
    readonly random: Random;
  },
): Promise<Generated> {
  const room = Math.min(job.sampling.max_new_tokens, job.limits.contextLength - job.prompt.length);
  if (room <= 0) {
    const issue = `a prompt of ${job.prompt.length} tokens leaves no room in a context of ${job.limits.contextLength}: raise --rollout-max-context-len or drop it by --rollout-max-prompt-len`;
    throw new SlimeError("data.invalid", issue, { file: "prompt", issues: [issue] });
  }
  const tokens: number[] = [];
  const logProbs: number[] = [];
  const spans: WeightSpan[] = [];
  let text = "";
  let failures = 0;
  for (let piece = 0, cuts = 0; ; piece++) {
    job.signal.throwIfAborted();
    let result: GenerateResult;
    try {
      result = await generator.generate(
        {
          rid: piece === 0 ? job.rid : `${job.rid}.${piece}`,
          input_ids: [...job.prompt, ...tokens],
          sampling_params: { ...job.sampling, max_new_tokens: room - tokens.length },
          return_logprob: true,
        },
        { signal: job.signal, timeoutMs: job.limits.requestMsMax, routingKey: job.routingKey },
      );
    } catch (error) {
      const delayMs = backoffDelayMs(job.limits.backoff, ++failures + 1, job.random);
      if (job.signal.aborted || delayMs === null || !factsOf(error).retryable) throw error;
      await sleep(job.clock, delayMs, job.signal);
      continue;
    }
    for (const span of result.weightSpans) spans.push({ ...span, from: span.from + tokens.length, to: span.to + tokens.length });
    tokens.push(...result.outputIds);
    logProbs.push(...result.outputLogProbs);
    text += result.text;
    if (result.finishReason.type !== "abort") return { tokens, logProbs, text, spans: joined(spans), finish: result.finishReason.type };
    if (tokens.length >= room) return { tokens, logProbs, text, spans: joined(spans), finish: "length" };
    if (++cuts > job.limits.resumesMax) {
      throw new SlimeError("engine.unavailable", `request ${job.rid} was cut off ${cuts} times`, {
        engine: "router",
        reason: result.finishReason.message,
      });
    }
  }
}

/** Neighbouring spans of one version as one. */
function joined(spans: readonly WeightSpan[]): readonly WeightSpan[] {
  const out: WeightSpan[] = [];
  for (const span of spans) {
    const last = out.at(-1);
    if (last !== undefined && last.version === span.version && last.mixed === span.mixed) out[out.length - 1] = { ...last, to: span.to };
    else out.push(span);
  }
  return out;
}
