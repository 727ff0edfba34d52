import type { Candidate } from "./policy.js";

/** Requests an engine may hold beyond twice the others' mean. */
const slack = 16;

/**
 * Whether an engine holds far more than the others: it may hang, and no probe has told yet. Policies that do not look at load pass it over
 * (L6), or every client would soon wait there.
 */
export function isOverfull(able: readonly Candidate[], one: Candidate): boolean {
  if (one.inFlight <= slack || able.length < 2) return false;
  let others = 0;
  for (const { inFlight } of able) others += inFlight;
  return one.inFlight > (2 * (others - one.inFlight)) / (able.length - 1) + slack;
}
