import type { Worker } from "./fleet.js";
import type { RouterParts } from "./parts.js";
import type { AttemptOutcome, ForwardRequest, ReplySink } from "./transport.js";

/** What one engine said to a call that went to all. */
export interface EngineAnswer {
  readonly worker: Worker;
  /** Null: none came; `body` says why. */
  readonly status: number | null;
  readonly body: string;
}

/**
 * Asks every engine the same, fenced and unhealthy ones too, `fanOutMax` at once and each for `fanOutMs` at most; one that is known not to
 * work has no longer than a probe has. One's failure is its own answer.
 */
export async function askAll(parts: RouterParts, request: ForwardRequest): Promise<readonly EngineAnswer[]> {
  const { workers } = parts.dispatcher.fleet;
  const answers = new Array<EngineAnswer>(workers.length);
  let next = 0;
  const ask = async () => {
    for (let i = next++; i < workers.length; i = next++) {
      const worker = workers[i];
      if (worker !== undefined) answers[i] = await askOne(parts, worker, request);
    }
  };
  await Promise.all(Array.from({ length: Math.min(parts.limits.fanOutMax, workers.length) }, ask));
  return answers;
}

async function askOne(parts: RouterParts, worker: Worker, request: ForwardRequest): Promise<EngineAnswer> {
  // A kept connection may have closed meanwhile; the next one is new.
  const first = await tryOne(parts, worker, request);
  return first ?? (await tryOne(parts, worker, request)) ?? { worker, status: null, body: "its connections close" };
}

/** Null: the connection was stale. */
async function tryOne({ transport, limits, clock }: RouterParts, worker: Worker, request: ForwardRequest): Promise<EngineAnswer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  let whyNot: string | null = null;
  const stop = (reason: string) => {
    whyNot ??= reason;
    attempt.cancel();
  };
  const sink: ReplySink = {
    begin: () => {},
    data(chunk) {
      bytes += chunk.length;
      // Not from within the transport's own call.
      if (bytes > limits.fanOutBytesMax)
        queueMicrotask(() => stop(`its answer is longer than fanOutBytesMax (${limits.fanOutBytesMax} bytes)`));
      else chunks.push(Buffer.from(chunk));
      return true;
    },
    end: () => {},
    cut: () => {},
  };
  const attempt = transport.send(worker.url, request, sink, true);
  const isOut = worker.health.kind === "unhealthy";
  const [limit, ms] = isOut ? ["probeTimeoutMs", limits.probeTimeoutMs] : ["fanOutMs", limits.fanOutMs];
  const timer = clock.after(ms, () => stop(`no answer within ${limit} (${ms} ms)`));
  const outcome = await attempt.outcome;
  timer.cancel();
  if (outcome.kind === "stale") return null;
  if (bytes > limits.fanOutBytesMax) whyNot ??= `its answer is longer than fanOutBytesMax (${limits.fanOutBytesMax} bytes)`;
  if (outcome.kind !== "answered" || whyNot !== null) return { worker, status: null, body: whyNot ?? failure(outcome) };
  return { worker, status: outcome.status, body: Buffer.concat(chunks).toString("utf8") };
}

function failure(outcome: AttemptOutcome): string {
  return "reason" in outcome ? outcome.reason : outcome.kind;
}
