import { seededRandom } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Decoder } from "./decoder.js";
import { Arena } from "./kernels.js";
import type { ModelConfig } from "./model-config.js";
import type { PackedSequences } from "./packing.js";
import type { RopeScaling } from "./rope.js";
import { randomPacked, referenceLogProbs, roughWeights, tinyConfig } from "./testing/index.js";
import { WeightSet } from "./weights.js";

const shape = fc.record({
  vocabSize: fc.integer({ min: 3, max: 21 }),
  hiddenSize: fc.constantFrom(8, 16, 24),
  intermediateSize: fc.constantFrom(8, 16),
  layers: fc.integer({ min: 1, max: 2 }),
  grouping: fc.constantFrom([1, 1], [2, 1], [2, 2], [4, 2]),
  headDim: fc.constantFrom(8, 16),
  qkNorm: fc.boolean(),
  ropeScaling: fc.constantFrom<RopeScaling | null>(
    null,
    { kind: "linear", factor: 2 },
    { kind: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalPositions: 32 },
  ),
  tiedHead: fc.boolean(),
  temperature: fc.constantFrom(0.7, 1),
  lengths: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 3 }).filter((l) => l.some((x) => x > 1)),
  seed: fc.nat(10_000),
});

interface Case {
  readonly config: ModelConfig;
  readonly packed: PackedSequences;
  readonly parameters: Float32Array;
  readonly temperature: number;
}

function build({ grouping, lengths, seed, temperature, ...rest }: typeof shape extends fc.Arbitrary<infer T> ? T : never): Case {
  const config = tinyConfig({ ...rest, heads: grouping[0] ?? 1, kvHeads: grouping[1] ?? 1 });
  return { config, packed: randomPacked(config, lengths, seed), parameters: roughWeights(config, seed), temperature };
}

function make({ config, parameters }: Case) {
  const arena = new Arena(1 << 20);
  const decoder = new Decoder(arena, config);
  const weights = new WeightSet(arena, config);
  weights.set(parameters);
  return { arena, decoder, weights };
}

/** Gradients of Σ a·logProb + b·entropy with fixed random a, b. */
function gradients(input: Case, coefficients: { readonly a: Float32Array; readonly b: Float32Array }): Float32Array {
  const { arena, decoder, weights } = make(input);
  const grads = arena.alloc(weights.layout.count);
  arena.kernels.fillZero(grads, weights.layout.count);
  decoder.accumulate(weights, input.packed, input.temperature, grads, () => ({ dLogProbs_T: coefficients.a, dEntropy_T: coefficients.b }));
  return arena.f32(grads, weights.layout.count).slice();
}

function coefficientsFor(input: Case, seed: number) {
  const random = seededRandom(seed);
  const draw = () => Float32Array.from({ length: input.packed.rows.length }, () => random.unit() * 2 - 1);
  return { a: draw(), b: draw() };
}

describe("decoder", () => {
  it("equals the plain double-precision reference over shapes", () => {
    fc.assert(
      fc.property(shape, (raw) => {
        const input = build(raw);
        const { decoder, weights } = make(input);
        const got = decoder.logProbs(weights, input.packed, input.temperature);
        const want = referenceLogProbs(input.config, input.parameters, input.packed, input.temperature);
        want.logProbs_T.forEach((value, t) => {
          expect(Math.abs((got.logProbs_T[t] ?? Number.NaN) - value)).toBeLessThan(2e-5 * (1 + Math.abs(value)));
        });
        want.entropy_T.forEach((value, t) => {
          expect(Math.abs((got.entropy_T[t] ?? Number.NaN) - value)).toBeLessThan(2e-5);
        });
      }),
      { seed: 2, numRuns: 40 },
    );
  });

  it("has the gradient of the reference, by central differences in double precision, in every tensor", () => {
    fc.assert(
      fc.property(shape, (raw) => {
        const input = build(raw);
        const coefficients = coefficientsFor(input, raw.seed);
        const got = gradients(input, coefficients);
        const loss = (parameters: Float64Array): number => {
          const { logProbs_T, entropy_T } = referenceLogProbs(input.config, parameters, input.packed, input.temperature);
          return logProbs_T.reduce(
            (sum, value, t) => sum + value * (coefficients.a[t] ?? 0) + (entropy_T[t] ?? 0) * (coefficients.b[t] ?? 0),
            0,
          );
        };
        const random = seededRandom(raw.seed + 1);
        const scale = Math.sqrt(got.reduce((sum, g) => sum + g * g, 0) / got.length);
        const { layout } = make(input).weights;
        for (const tensor of layout.tensors) {
          for (let probe = 0; probe < 2; probe++) {
            const i = tensor.offset + Math.floor(random.unit() * tensor.count);
            const shifted = (by: number) => loss(Float64Array.from(input.parameters, (p, j) => (j === i ? p + by : p)));
            const numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            expect(Math.abs((got[i] ?? Number.NaN) - numeric), `${tensor.name}[${i - tensor.offset}]`).toBeLessThan(
              2e-3 * Math.abs(numeric) + 2e-3 * scale + 1e-5,
            );
          }
        }
      }),
      { seed: 3, numRuns: 12 },
    );
  });

  it("D1: a sequence has the same bits alone as among others", () => {
    const config = tinyConfig({ hiddenSize: 24, heads: 4, kvHeads: 2 });
    const lengths = [5, 1, 13, 8];
    const packed = randomPacked(config, lengths, 7);
    const input: Case = { config, packed, parameters: roughWeights(config, 7), temperature: 1 };
    const { decoder, weights } = make(input);
    const together = decoder.logProbs(weights, packed, 1).logProbs_T;
    let row = 0;
    lengths.forEach((length, s) => {
      const from = packed.bounds[s] ?? 0;
      const tokens_L = packed.tokens_L.slice(from, from + length);
      const rows = Int32Array.from({ length: length - 1 }, (_, i) => i);
      const alone = decoder.logProbs(
        weights,
        { tokens_L, bounds: Int32Array.of(0, length), rows, targets: rows.map((i) => tokens_L[i + 1] ?? 0) },
        1,
      ).logProbs_T;
      expect([...alone]).toEqual([...together.slice(row, row + length - 1)]);
      row += length - 1;
    });
  });

  it("gives the same log-probs to the bit and the same gradients when the head works in chunks", () => {
    const config = tinyConfig({ vocabSize: 21 });
    const packed = randomPacked(config, [9, 7], 6);
    const [whole, chunked] = [1 << 20, 3 * 24].map((logitsFloatsMax) => {
      const arena = new Arena(1 << 20);
      const decoder = new Decoder(arena, config, logitsFloatsMax);
      const weights = new WeightSet(arena, config);
      weights.set(roughWeights(config, 6));
      const grads = arena.alloc(weights.layout.count);
      arena.kernels.fillZero(grads, weights.layout.count);
      let seen: Float32Array | undefined;
      decoder.accumulate(weights, packed, 1, grads, ({ logProbs_T, entropy_T }) => {
        seen = logProbs_T;
        return { dLogProbs_T: logProbs_T, dEntropy_T: entropy_T };
      });
      return { seen, grads: arena.f32(grads, weights.layout.count).slice() };
    });
    expect(chunked?.seen).toEqual(whole?.seen);
    // The sums over rows meet in another order.
    chunked?.grads.forEach((g, i) => expect(Math.abs(g - (whole?.grads[i] ?? Number.NaN))).toBeLessThan(1e-5));
  });

  it("lets a NaN anywhere in the weights reach the loss: nothing swallows it", () => {
    const config = tinyConfig();
    const packed = randomPacked(config, [6], 8);
    const input: Case = { config, packed, parameters: roughWeights(config, 8), temperature: 1 };
    const { decoder, weights } = make(input);
    for (const tensor of weights.layout.tensors) {
      // Of an embedding only the rows of the tokens at hand are read.
      const row = tensor.name === "model.embed_tokens.weight" ? (packed.tokens_L[0] ?? 0) * config.hiddenSize : 0;
      weights.set(input.parameters.map((p, i) => (i === tensor.offset + row ? Number.NaN : p)));
      const { logProbs_T } = decoder.logProbs(weights, packed, 1);
      expect(logProbs_T.some(Number.isNaN), tensor.name).toBe(true);
    }
  });

  it("D2, D3: gradients add up over micro-batches, equal runs give equal bits, and the arena is left as it was", () => {
    const config = tinyConfig();
    const packed = randomPacked(config, [6, 4], 9);
    const input: Case = { config, packed, parameters: roughWeights(config, 9), temperature: 1 };
    const coefficients = coefficientsFor(input, 9);
    const once = gradients(input, coefficients);
    expect(gradients(input, coefficients)).toEqual(once);
    const { arena, decoder, weights } = make(input);
    const grads = arena.alloc(weights.layout.count);
    arena.kernels.fillZero(grads, weights.layout.count);
    const before = arena.bytesUsed;
    for (let i = 0; i < 2; i++)
      decoder.accumulate(weights, packed, 1, grads, () => ({ dLogProbs_T: coefficients.a, dEntropy_T: coefficients.b }));
    expect(arena.bytesUsed).toBe(before);
    arena.f32(grads, weights.layout.count).forEach((g, i) => {
      expect(g).toBeCloseTo(2 * (once[i] ?? Number.NaN), 4);
    });
  });
});
