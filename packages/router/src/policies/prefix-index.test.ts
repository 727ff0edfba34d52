import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { blockBytes, PrefixIndex, prefixHashes } from "./prefix-index.js";

/** Prompts that share beginnings: a few letters, in runs of about a block. */
const prompt = fc.array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 6 }).chain((letters) =>
  fc.nat({ max: blockBytes }).map((cut) =>
    Buffer.from(
      letters
        .map((l) => l.repeat(blockBytes))
        .join("")
        .slice(cut),
    ),
  ),
);

function commonBytes(a: Uint8Array, b: Uint8Array): number {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  return i;
}

describe("PrefixIndex", () => {
  it("X1, X2: is bounded, and what it holds of a prompt is a beginning of it", () => {
    fc.assert(
      fc.property(fc.array(prompt, { maxLength: 30 }), fc.integer({ min: 1, max: 12 }), (prompts, nodesMax) => {
        const index = new PrefixIndex(nodesMax);
        for (const one of prompts) {
          const hashes = prefixHashes(one);
          index.add(hashes);
          expect(index.size).toBeLessThanOrEqual(nodesMax);
          // The newest is there whole, as far as there is room.
          expect(index.match(hashes)).toBe(Math.min(hashes.length, nodesMax));
          for (const other of prompts) {
            // Bisection finds what looking at each node finds: no node without those before it.
            const known = prefixHashes(other).map((hash) => index.match([hash]) === 1);
            const first = known.indexOf(false);
            expect(index.match(prefixHashes(other))).toBe(first < 0 ? known.length : first);
            if (first >= 0) expect(known.slice(first)).not.toContain(true);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it("matches the blocks that two prompts share, and no more", () => {
    fc.assert(
      fc.property(prompt, prompt, (one, other) => {
        const index = new PrefixIndex(1_000);
        index.add(prefixHashes(one));
        const common = commonBytes(one, other);
        const isSame = common === one.length && common === other.length;
        expect(index.match(prefixHashes(other))).toBe(isSame ? prefixHashes(other).length : Math.floor(common / blockBytes));
      }),
    );
  });

  it("a prompt is cut into its blocks and the rest", () => {
    expect(prefixHashes(Buffer.alloc(0))).toHaveLength(0);
    expect(prefixHashes(Buffer.alloc(blockBytes))).toHaveLength(1);
    expect(prefixHashes(Buffer.alloc(blockBytes + 1))).toHaveLength(2);
  });
});
