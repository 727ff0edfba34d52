import { get } from "node:http";
import type { Clock } from "@slime/core";

/** What asking a server one question showed. */
export type ProbeOutcome =
  | { readonly kind: "answered"; readonly status: number }
  /** Nobody listens there, or the connection broke before an answer. */
  | { readonly kind: "refused"; readonly reason: string }
  /** No answer within the time. */
  | { readonly kind: "silent" };

export interface ProbeOptions {
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** GETs one path over a connection of its own, so that no pooled connection's fate is taken for the server's. Never throws; an abort is silence. */
export function probe(url: string, path: string, options: ProbeOptions): Promise<ProbeOutcome> {
  return new Promise((resolve) => {
    const { clock, timeoutMs, signal } = options;
    if (signal?.aborted) return resolve({ kind: "silent" });
    const end = (outcome: ProbeOutcome) => {
      timer.cancel();
      signal?.removeEventListener("abort", onAbort);
      request.destroy();
      resolve(outcome);
    };
    const onAbort = () => end({ kind: "silent" });
    const timer = clock.after(timeoutMs, () => end({ kind: "silent" }));
    const request = get(new URL(path, url), { agent: false, headers: { connection: "close" } }, (reply) => {
      reply.resume();
      end({ kind: "answered", status: reply.statusCode ?? 0 });
    });
    request.on("error", (error) => end({ kind: "refused", reason: error.message }));
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
