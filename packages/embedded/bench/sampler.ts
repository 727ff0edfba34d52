import type { Random } from "@slime/core";
import { type Arena, type ModelConfig, ropeTables, WeightSet } from "@slime/embedded";

/** One generated answer. */
export interface Drawn {
  readonly tokens: number[];
  readonly logProbs: number[];
}

/**
 * The shortest decoding loop on the serving kernels, for benches that must not depend on the engine: prompts of one length,
 * all decoded together until each ends or has `tokensMax` tokens.
 */
export class BenchSampler {
  readonly weights: WeightSet;
  readonly #arena: Arena;
  readonly #config: ModelConfig;
  readonly #rope: { readonly cos: number; readonly sin: number };

  constructor(arena: Arena, config: ModelConfig) {
    this.#arena = arena;
    this.#config = config;
    this.weights = new WeightSet(arena, config);
    this.#rope = ropeTables(arena, config);
  }

  /** @param random null takes the likeliest token. */
  generate(prompts: readonly (readonly number[])[], tokensMax: number, endToken: number, random: Random | null): Drawn[] {
    const arena = this.#arena;
    const { kernels } = arena;
    const { layers, kvHeads, headDim, vocabSize } = this.#config;
    const mark = arena.mark();
    const promptLength = prompts[0]?.length ?? 0;
    const rowsPer = promptLength + tokensMax;
    const kvWidth = kvHeads * headDim;
    const pools = Array.from({ length: layers }, () => ({
      k: arena.alloc(prompts.length * rowsPer * kvWidth),
      v: arena.alloc(prompts.length * rowsPer * kvWidth),
    }));
    const tables = arena.allocI32(Array.from({ length: prompts.length * rowsPer }, (_, i) => i));
    const drawn: Drawn[] = prompts.map(() => ({ tokens: [], logProbs: [] }));
    let live = prompts.map((_, i) => i);
    let input = prompts.map((prompt) => [...prompt]);
    let position = 0;
    for (let step = 0; step < tokensMax && live.length > 0; step++) {
      const inner = arena.mark();
      const width = input[0]?.length ?? 0;
      const rows = live.flatMap((request) => Array.from({ length: width }, (_, t) => ({ request, position: position + t })));
      const logits = this.#forward(
        input.flat(),
        rows,
        pools,
        tables,
        rowsPer,
        live.map((_, i) => (i + 1) * width - 1),
      );
      const ld = this.weights.vocabPadded;
      const probs = arena.alloc(live.length * ld);
      kernels.softmaxRows(logits, ld, vocabSize, 1, live.length, probs);
      const view = arena.f32(probs, live.length * ld);
      const chosen = live.map((_, i) => choose(view.subarray(i * ld, i * ld + vocabSize), random));
      const targets = arena.allocI32(chosen);
      const [lp, lse, entropy] = [arena.alloc(live.length), arena.alloc(live.length), arena.alloc(live.length)];
      kernels.logProbs(logits, ld, vocabSize, 1, targets, live.length, lp, lse, entropy);
      const logProbs = arena.f32(lp, live.length);
      live.forEach((request, i) => {
        drawn[request]?.tokens.push(chosen[i] ?? 0);
        drawn[request]?.logProbs.push(logProbs[i] ?? Number.NaN);
      });
      position += width;
      const open = live.map((request, i) => ({ request, token: chosen[i] ?? 0 })).filter(({ token }) => token !== endToken);
      live = open.map(({ request }) => request);
      input = open.map(({ token }) => [token]);
      arena.release(inner);
    }
    arena.release(mark);
    return drawn;
  }

  #forward(
    tokens: readonly number[],
    rows: readonly { readonly request: number; readonly position: number }[],
    pools: readonly { readonly k: number; readonly v: number }[],
    tables: number,
    rowsPer: number,
    wanted: readonly number[],
  ): number {
    const arena = this.#arena;
    const { kernels } = arena;
    const { hiddenSize: d, intermediateSize: f, heads, kvHeads, headDim: hd, normEps: eps, qkNorm } = this.#config;
    const w = this.weights;
    const n = rows.length;
    const qDim = heads * hd;
    const kvDim = kvHeads * hd;
    const width = qDim + 2 * kvDim;
    const ids = arena.allocI32(tokens);
    const positions = arena.allocI32(rows.map((row) => row.position));
    const slots = arena.allocI32(rows.map((row) => row.request * rowsPer + row.position));
    const rowTables = arena.allocI32(rows.map((row) => tables + row.request * rowsPer * 4));
    const lens = arena.allocI32(rows.map((row) => row.position + 1));
    const wantedRows = arena.allocI32(wanted);
    const [x, h, rstd, qkv] = [arena.alloc(n * d), arena.alloc(n * d), arena.alloc(n * heads), arena.alloc(n * width)];
    const [attn, gateUp, act, scratch] = [arena.alloc(n * qDim), arena.alloc(n * 2 * f), arena.alloc(n * f), arena.alloc(rowsPer + 4)];
    kernels.gatherRows(ids, w.embed, x, n, d);
    w.layers.forEach((layer, i) => {
      const pool = pools[i] ?? { k: 0, v: 0 };
      kernels.rmsNorm(x, d, layer.inputNorm, h, d, rstd, n, 1, d, eps);
      kernels.gemm(n, width, d, h, d, 1, layer.qkvT, width, qkv, width, 0);
      if (qkNorm) {
        kernels.rmsNorm(qkv, width, layer.qNorm, qkv, width, rstd, n, heads, hd, eps);
        kernels.rmsNorm(qkv + qDim * 4, width, layer.kNorm, qkv + qDim * 4, width, rstd, n, kvHeads, hd, eps);
      }
      kernels.rope(qkv, width, n, heads + kvHeads, hd, positions, this.#rope.cos, this.#rope.sin, 0);
      kernels.storeRows(qkv + qDim * 4, width, slots, pool.k, n, kvDim);
      kernels.storeRows(qkv + (qDim + kvDim) * 4, width, slots, pool.v, n, kvDim);
      kernels.attendCached(qkv, width, n, rowTables, lens, pool.k, pool.v, heads, kvHeads, hd, 1 / Math.sqrt(hd), attn, qDim, scratch);
      kernels.gemm(n, d, qDim, attn, qDim, 1, layer.oT, d, x, d, 1);
      kernels.rmsNorm(x, d, layer.postNorm, h, d, rstd, n, 1, d, eps);
      kernels.gemm(n, 2 * f, d, h, d, 1, layer.gateUpT, 2 * f, gateUp, 2 * f, 0);
      kernels.swiglu(gateUp, act, n, f);
      kernels.gemm(n, d, f, act, f, 1, layer.downT, d, x, d, 1);
    });
    kernels.gatherRows(wantedRows, x, h, wanted.length, d);
    kernels.rmsNorm(h, d, w.finalNorm, h, d, rstd, wanted.length, 1, d, eps);
    const logits = arena.alloc(wanted.length * w.vocabPadded);
    kernels.gemm(wanted.length, w.vocabPadded, d, h, d, 1, w.headT, w.vocabPadded, logits, w.vocabPadded, 0);
    return logits;
  }
}

function choose(probs: Float32Array, random: Random | null): number {
  if (random === null) return probs.reduce((best, p, i) => (p > (probs[best] ?? 0) ? i : best), 0);
  let left = random.unit();
  for (let i = 0; i < probs.length; i++) {
    left -= probs[i] ?? 0;
    if (left < 0) return i;
  }
  return probs.length - 1;
}
