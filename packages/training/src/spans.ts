import type { Span } from "./run-records.js";

/** Milliseconds in which both lanes did something. Spans of one lane may touch but count once. */
export function overlapMs(spans: readonly Span[], a: Span["lane"], b: Span["lane"]): number {
  const left = merged(spans.filter((span) => span.lane === a));
  const right = merged(spans.filter((span) => span.lane === b));
  let sum = 0;
  for (const [fromA, toA] of left) for (const [fromB, toB] of right) sum += Math.max(0, Math.min(toA, toB) - Math.max(fromA, fromB));
  return sum;
}

/** Milliseconds in which a lane did something. */
export function busyMs(spans: readonly Span[], lane: Span["lane"]): number {
  return merged(spans.filter((span) => span.lane === lane)).reduce((sum, [from, to]) => sum + to - from, 0);
}

function merged(spans: readonly Span[]): readonly (readonly [number, number])[] {
  const out: [number, number][] = [];
  for (const { startMs, endMs } of [...spans].sort((x, y) => x.startMs - y.startMs)) {
    const last = out.at(-1);
    if (last !== undefined && startMs <= last[1]) last[1] = Math.max(last[1], endMs);
    else out.push([startMs, endMs]);
  }
  return out;
}
