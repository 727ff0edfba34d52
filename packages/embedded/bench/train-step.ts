/**
 * One train step (forward, backward, Adam) at 2,048 packed tokens against the peak of the same gemm kernel, alternating in one run so that
 * both meet the same machine. Prints one JSON line, best of the rounds; bar: 60 % of the peak. Arguments: hidden layers tokens sequence.
 */
import { seededRandom } from "@slime/core";
import { Arena, Decoder, initialWeights, parameterLayout, WeightSet } from "@slime/embedded";
import { randomPacked, tinyConfig } from "@slime/embedded/testing";

const [hidden = 64, layers = 2, tokens = 2048, sequence = 32] = process.argv.slice(2).map(Number);
const rounds = 15;
const config = tinyConfig({
  hiddenSize: hidden,
  intermediateSize: 2 * hidden,
  layers,
  heads: hidden / 16,
  kvHeads: hidden / 32,
  headDim: 16,
  vocabSize: 64,
  positionsMax: 4096,
  initStd: 0.05,
});
const layout = parameterLayout(config);
const arena = new Arena(1 << 26);
const decoder = new Decoder(arena, config);
const weights = new WeightSet(arena, config);
weights.set(initialWeights(config, 1));
const [grads, m, v] = [arena.alloc(layout.count), arena.alloc(layout.count), arena.alloc(layout.count)];
for (const at of [grads, m, v]) arena.kernels.fillZero(at, layout.count);
/** What the trainer cuts a micro-batch of this shape into. */
const passTokens = Math.min(tokens, Math.max(256, Math.floor((1 << 17) / (4 * hidden))));
const packed = randomPacked(config, Array<number>(Math.floor(passTokens / sequence)).fill(sequence), 2);
const passes = Math.round(tokens / packed.tokens_L.length);
const random = seededRandom(3);
const ones = Float32Array.from(packed.rows, () => random.unit() - 0.5);
const zeros = new Float32Array(packed.rows.length);

/** Multiply-adds count two; every matrix is used three times (forward, and twice in the backward pass); attention: scores and values, causal half. */
const matrices = layout.count - config.vocabSize * hidden;
const attention = layers * config.heads * config.headDim * 2 * 2 * (sequence / 2) * 3;
const stepFlops = passes * packed.tokens_L.length * (2 * 3 * matrices + attention);

function step(): number {
  const began = performance.now();
  arena.kernels.fillZero(grads, layout.count);
  for (let pass = 0; pass < passes; pass++) decoder.accumulate(weights, packed, 1, grads, () => ({ dLogProbs_T: ones, dEntropy_T: zeros }));
  arena.kernels.sumSquares(grads, layout.count);
  arena.kernels.adam(weights.base, grads, m, v, layout.count, 1, 1e-4, 0.9, 0.99, 1e-8, 0, 1, 1);
  weights.refresh();
  return performance.now() - began;
}

/** The kernel at the shape it likes best: all of it in the first-level cache. */
function peak(): number {
  const mark = arena.mark();
  const [M, N, K] = [64, 64, 64];
  const [A, B, C] = [arena.alloc(M * K), arena.alloc(K * N), arena.alloc(M * N)];
  const repeats = 400;
  const began = performance.now();
  for (let i = 0; i < repeats; i++) arena.kernels.gemm(M, N, K, A, K, 1, B, N, C, N, 0);
  const ms = performance.now() - began;
  arena.release(mark);
  return (2 * M * N * K * repeats) / ms / 1e6;
}

const times: number[] = [];
const peaks: number[] = [];
for (let round = 0; round < rounds; round++) {
  times.push(step());
  peaks.push(peak());
}
const best = Math.min(...times);
const top = Math.max(...peaks);
const got = stepFlops / best / 1e6;
const round = (value: number) => Math.round(value * 10) / 10;
process.stdout.write(
  `${JSON.stringify({ bench: "embedded.train-step", parameters: layout.count, tokens, sequence, stepMs: round(best), gflops: round(got), gemmPeakGflops: round(top), percentOfPeak: round((100 * got) / top), bar: 60 })}\n`,
);
