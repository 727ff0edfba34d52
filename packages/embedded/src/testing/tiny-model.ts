import { seededRandom } from "@slime/core";
import type { ModelConfig } from "../model-config.js";
import type { PackedSequences } from "../packing.js";
import { initialWeights } from "../weights.js";

/** The smallest shape with every feature on; override what a case needs. */
export function tinyConfig(overrides: Partial<ModelConfig> = {}): ModelConfig {
  return {
    vocabSize: 11,
    hiddenSize: 8,
    intermediateSize: 8,
    layers: 2,
    heads: 2,
    kvHeads: 1,
    headDim: 8,
    qkNorm: true,
    ropeTheta: 10_000,
    ropeScaling: null,
    normEps: 1e-6,
    tiedHead: false,
    positionsMax: 64,
    bosTokenId: null,
    eosTokenIds: [0],
    initStd: 0.02,
    ...overrides,
  };
}

/** The same as a Llama: no qk-norm, a tied head, Llama 3.1's rotary scaling, a head size that is not hidden size over heads. */
export function tinyLlamaConfig(overrides: Partial<ModelConfig> = {}): ModelConfig {
  return tinyConfig({
    qkNorm: false,
    tiedHead: true,
    headDim: 16,
    normEps: 1e-5,
    ropeTheta: 100_000,
    ropeScaling: { kind: "llama3", factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalPositions: 32 },
    ...overrides,
  });
}

/** Weights large enough for every part to matter: norms off 1, projections of order one. */
export function roughWeights(config: ModelConfig, seed: number): Float32Array {
  const random = seededRandom(seed);
  return initialWeights({ ...config, initStd: 0.4 }, seed).map((w) => w + 0.2 * (random.unit() - 0.5));
}

/** Sequences of the given lengths with random tokens; every position but the last of each asks for its next token. */
export function randomPacked(config: ModelConfig, lengths: readonly number[], seed: number): PackedSequences {
  const random = seededRandom(seed);
  const total = lengths.reduce((a, b) => a + b, 0);
  const tokens_L = Int32Array.from({ length: total }, () => Math.floor(random.unit() * config.vocabSize));
  const bounds = [0];
  const rows: number[] = [];
  for (const length of lengths) {
    const from = bounds.at(-1) ?? 0;
    for (let i = from; i + 1 < from + length; i++) rows.push(i);
    bounds.push(from + length);
  }
  return {
    tokens_L,
    bounds: Int32Array.from(bounds),
    rows: Int32Array.from(rows),
    targets: Int32Array.from(rows, (row) => tokens_L[row + 1] ?? 0),
  };
}
