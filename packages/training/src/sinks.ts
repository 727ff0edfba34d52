import { appendFileSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { Clock, Logger } from "@slime/core";
import type { MetricSink, SpanSink } from "./run-records.js";

/** JSON lines appended as they come. What cannot be written is said once and then left: metrics never stop a run. */
function lines(path: string, log: Logger): (value: object) => void {
  let isBroken = false;
  mkdirSync(dirname(path), { recursive: true });
  return (value) => {
    if (isBroken) return;
    try {
      appendFileSync(path, `${JSON.stringify(value)}\n`);
    } catch (error) {
      isBroken = true;
      log.error("metrics.lost", { path, reason: error instanceof Error ? error.message : String(error) });
    }
  };
}

/** `metrics.jsonl`: `{"at": …, "rollout/step": 3, "rollout/raw_reward": 0.5, …}`. */
export function metricsFile(path: string, parts: { readonly clock: Clock; readonly log: Logger }): MetricSink {
  const write = lines(path, parts.log);
  return { write: ({ axis, step, values }) => write({ at: parts.clock.wallMs(), [axis]: step, ...values }) };
}

/** `spans.jsonl`: `{"lane": "training", "rolloutId": 3, "startMs": …, "endMs": …}`, times of the driver's monotonic clock. */
export function spansFile(path: string, parts: { readonly log: Logger }): SpanSink {
  const write = lines(path, parts.log);
  return { write: (span) => write(span) };
}
