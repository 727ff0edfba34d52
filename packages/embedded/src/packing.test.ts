import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { packSamples, passesOf } from "./packing.js";
import { randomColumns, tinyConfig } from "./testing/index.js";

describe("passesOf", () => {
  it("holds every sample once, in order, and no pass is longer than the cache unless it is one sample", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 300 }), fc.constantFrom(8, 1024, 1 << 16), (rows, intermediateSize) => {
        const config = tinyConfig({ intermediateSize });
        const columns = randomColumns(config, rows, rows);
        const samples = Int32Array.from({ length: rows }, (_, i) => i);
        const passes = passesOf(columns, samples, config);
        expect(passes.flatMap((pass) => [...pass])).toEqual([...samples]);
        const tokensMax = Math.max(256, Math.floor((1 << 17) / (2 * intermediateSize)));
        for (const pass of passes) {
          expect(pass.length).toBeGreaterThan(0);
          expect(pass.length === 1 || packSamples(columns, pass).tokens_L.length <= tokensMax).toBe(true);
        }
      }),
      { seed: 5, numRuns: 40 },
    );
  });
});

describe("packSamples", () => {
  it("asks for each response token at the position before it", () => {
    const config = tinyConfig();
    const columns = randomColumns(config, 5, 3);
    const packed = packSamples(columns, [3, 1]);
    let t = 0;
    for (const [s, row] of [3, 1].entries()) {
      const tokens = columns.tokens_L.slice(columns.tokenOffsets_N[row], columns.tokenOffsets_N[row + 1]);
      expect(packed.tokens_L.slice(packed.bounds[s], packed.bounds[s + 1])).toEqual(tokens);
      const response = columns.responseLengths_N[row] ?? 0;
      for (let i = tokens.length - response; i < tokens.length; i++, t++) {
        expect(packed.rows[t]).toBe((packed.bounds[s] ?? 0) + i - 1);
        expect(packed.targets[t]).toBe(tokens[i]);
      }
    }
    expect(packed.rows.length).toBe(t);
  });

  it("refuses a sample without a prompt token, by name", () => {
    const columns = randomColumns(tinyConfig(), 1, 4);
    columns.responseLengths_N[0] = columns.tokens_L.length;
    expect(() => packSamples(columns, [0])).toThrow(/sample 0 \(instance 0:0\).*at least one token/);
  });
});
