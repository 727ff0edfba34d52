import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CandidateFinder, type Narrowing } from "./candidates.js";

/** The definition: everything sorted. */
function bySorting(probs: Float32Array, { topP, topK, minP }: Narrowing): number[] {
  const order = Array.from(probs, (_, token) => token).sort((a, b) => (probs[b] ?? 0) - (probs[a] ?? 0) || a - b);
  const kept: number[] = [];
  let mass = 0;
  for (const token of order.slice(0, topK ?? order.length)) {
    const p = probs[token] ?? 0;
    if (kept.length > 0 && (mass > topP || p < minP * (probs[order[0] ?? 0] ?? 0))) break;
    mass += p;
    kept.push(token);
  }
  return kept;
}

describe("CandidateFinder", () => {
  it("C1: finds what sorting the whole vocabulary finds", () => {
    const weights = fc.array(
      fc.oneof(
        fc.constantFrom(0, 1, 1, 2, 1e-6),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: -30, max: 3, noNaN: true }).map(Math.exp),
      ),
      {
        minLength: 1,
        maxLength: 300,
      },
    );
    const narrowing = fc.record({
      topP: fc.oneof(fc.constant(1), fc.double({ min: 1e-6, max: 1, noNaN: true })),
      topK: fc.oneof(fc.constant(null), fc.integer({ min: 1, max: 320 })),
      minP: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
    });
    fc.assert(
      fc.property(weights, narrowing, (raw, wanted) => {
        const total = raw.reduce((sum, w) => sum + w, 0) || 1;
        const probs = Float32Array.from(raw, (w) => w / total);
        expect([...new CandidateFinder(probs.length).find(probs, wanted)]).toEqual(bySorting(probs, wanted));
      }),
      { seed: 6, numRuns: 300 },
    );
  });
});
