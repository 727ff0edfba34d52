import type { Clock } from "@slime/core";
import type { ForwardRequest, ReplySink, Transport } from "./transport.js";

/** Bytes of a probe's answer that are read. */
const probeBytesMax = 1 << 20;

/** Asks an engine how it is, and with `version` which weights it holds, by the requests that `send` carries. */
export async function probeEngine(
  send: Transport["send"],
  clock: Clock,
  url: string,
  { timeoutMs, version }: Parameters<Transport["probe"]>[1],
): ReturnType<Transport["probe"]> {
  const until = clock.nowMs() + timeoutMs;
  const late = `no answer to a probe within ${timeoutMs} ms`;
  const health = await ask(send, clock, url, "/health", until, late);
  if (typeof health === "string") return { ok: false, reason: health };
  if (health.status !== 200) return { ok: false, reason: `/health answered ${health.status}` };
  if (!version) return { ok: true, found: null };
  const info = await ask(send, clock, url, "/model_info", until, late);
  if (typeof info === "string") return { ok: false, reason: info };
  return { ok: true, found: weightVersion(info.body) };
}

/** One small GET, its answer read whole; or why there was none. */
async function ask(
  send: Transport["send"],
  clock: Clock,
  url: string,
  path: string,
  until: number,
  late: string,
): Promise<{ readonly status: number; readonly body: Buffer } | string> {
  const request: ForwardRequest = { id: "", method: "GET", path, headers: [], body: null };
  let isLate = false;
  for (let tries = 0; ; tries++) {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const sink: ReplySink = {
      begin: () => {},
      data: (chunk) => {
        bytes += chunk.length;
        if (bytes <= probeBytesMax) chunks.push(Buffer.from(chunk));
        return true;
      },
      end: () => {},
      cut: () => {},
    };
    const attempt = send(url, request, sink, true);
    const timer = clock.after(until - clock.nowMs(), () => {
      isLate = true;
      attempt.cancel();
    });
    const outcome = await attempt.outcome;
    timer.cancel();
    if (outcome.kind === "answered") return { status: outcome.status, body: Buffer.concat(chunks) };
    // A kept connection had closed meanwhile; the next one is new.
    if (outcome.kind === "stale" && tries === 0) continue;
    if (isLate) return late;
    return "reason" in outcome ? outcome.reason : outcome.kind;
  }
}

/** The engine's own word for its weights, in a `/model_info`; null when it has none. */
function weightVersion(body: Buffer): string | null {
  try {
    const json: unknown = JSON.parse(body.toString("utf8"));
    return typeof json === "object" && json !== null && "weight_version" in json ? String(json.weight_version) : null;
  } catch {
    return null;
  }
}
