import type { ServerResponse } from "node:http";
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
export async function fanOut(
  { dispatcher, transport, limits, clock }: RouterParts,
  request: ForwardRequest,
  response: ServerResponse,
): Promise<void> {
  const answers = await Promise.all(
    dispatcher.fleet.workers.map(async ({ url }): Promise<EngineAnswer> => {
      const controller = new AbortController();
      const timer = clock.after(limits.waitMs, () => controller.abort());
      const chunks: Buffer[] = [];
      const sink = { begin: () => {}, data: (chunk: Buffer) => chunks.push(chunk) > 0, end: () => {}, cut: () => {} };
      const outcome = await transport
        .send(url, request, sink, { passRefusals: true, signal: controller.signal })
        .outcome.finally(() => timer.cancel());
      return {
        worker: url,
        status: outcome.kind === "answered" ? outcome.status : null,
        body: outcome.kind === "answered" ? Buffer.concat(chunks).toString("utf8").slice(0, 4_096) : failure(outcome),
      };
    }),
  );
  const ok = answers.every(({ status }) => status === 200);
  const text = JSON.stringify({ status: ok ? "ok" : "failed", workers: answers });
  response.writeHead(ok ? 200 : 502, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "x-request-id": request.id,
  });
  response.end(text);
}

function failure(outcome: AttemptOutcome): string {
  return "reason" in outcome ? outcome.reason : outcome.kind;
}
