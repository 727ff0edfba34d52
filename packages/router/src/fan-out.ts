import type { OwnReply } from "./management.js";
import type { RouterParts } from "./parts.js";
import type { AttemptOutcome, ForwardRequest } from "./transport.js";

/** Control routes that concern every engine; sglang_router has none of them. */
export const fanOutPaths: ReadonlySet<string> = new Set(["/abort_request", "/pause_generation", "/continue_generation", "/flush_cache"]);

interface EngineAnswer {
  readonly worker: string;
  readonly status: number | null;
  readonly body: string;
}

/** Sends a control call to every engine, fenced ones too, and answers 200 when all said 200; else 502, with each one's answer. */
export async function fanOut(parts: RouterParts, request: ForwardRequest): Promise<OwnReply> {
  const answers = await Promise.all(
    parts.dispatcher.fleet.workers.map(async ({ url }): Promise<EngineAnswer> => {
      // A kept connection may have closed meanwhile; the next one is new.
      const first = await ask(parts, url, request);
      const { outcome, body } = first.outcome.kind === "stale" ? await ask(parts, url, request) : first;
      return {
        worker: url,
        status: outcome.kind === "answered" ? outcome.status : null,
        body: outcome.kind === "answered" ? body : failure(outcome),
      };
    }),
  );
  const ok = answers.every(({ status }) => status === 200);
  return {
    status: ok ? 200 : 502,
    headers: { "x-request-id": request.id },
    body: { status: ok ? "ok" : "failed", workers: answers },
  };
}

async function ask(
  { transport, limits, clock }: RouterParts,
  url: string,
  request: ForwardRequest,
): Promise<{ readonly outcome: AttemptOutcome; readonly body: string }> {
  const chunks: Buffer[] = [];
  const sink = { begin: () => {}, data: (chunk: Buffer) => chunks.push(chunk) > 0, end: () => {}, cut: () => {} };
  const attempt = transport.send(url, request, sink, true);
  const timer = clock.after(limits.waitMs, attempt.cancel);
  const outcome = await attempt.outcome.finally(() => timer.cancel());
  return { outcome, body: Buffer.concat(chunks).toString("utf8").slice(0, 4_096) };
}

function failure(outcome: AttemptOutcome): string {
  return "reason" in outcome ? outcome.reason : outcome.kind;
}
