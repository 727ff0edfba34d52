import { invariant } from "@slime/core";
import { checksumHex, checksumHexOf } from "../checksum.js";
import { Arena } from "../kernels.js";
import type { ModelConfig } from "../model-config.js";
import { ropeTables } from "../rope.js";
import { WeightSet } from "../weights.js";
import { KvPages, pageRows } from "./kv-pages.js";
import { Sampler, samplerFloats } from "./sampling.js";

/** Floats through which values from outside are copied for their checksum: 4 MB. */
const stagedFloats = 1 << 20;

export interface CachedDecoderSizes {
  /** Requests with a KV table of their own. */
  readonly slots: number;
  readonly kvPages: number;
  readonly rowsMax: number;
  readonly logitsBytesMax: number;
}

/**
 * The serving forward pass: rows of any requests, prompts and single tokens mixed, against a paged KV cache.
 * It shares kernels with the trainer, never its forward pass. D1: a row's result depends on its own request alone, to the bit,
 * because every kernel sums each element in one order whatever the number of rows.
 * D2: all memory is taken in the constructor, so views stay valid and a step allocates nothing in the arena.
 */
export class CachedDecoder {
  readonly arena: Arena;
  readonly weights: WeightSet;
  readonly pages: KvPages;
  readonly rowsMax: number;
  /** Rows of one call of `logits`. */
  readonly logitsRowsMax: number;
  /** Floats between rows of logits. */
  readonly logitsStride: number;
  readonly #config: ModelConfig;
  readonly #cos: number;
  readonly #sin: number;
  readonly #keys: readonly number[];
  readonly #values: readonly number[];
  readonly #tables: Int32Array;
  readonly #tablesAt: number;
  readonly #at: Readonly<
    Record<
      | "ids"
      | "positions"
      | "kvRows"
      | "tableOf"
      | "lens"
      | "wanted"
      | "x"
      | "h"
      | "qkv"
      | "att"
      | "gateUp"
      | "act"
      | "rstd"
      | "scratch"
      | "logits"
      | "sampler"
      | "staged",
      number
    >
  >;
  readonly #ids: Int32Array;
  readonly #positions: Int32Array;
  readonly #kvRows: Int32Array;
  readonly #tableOf: Int32Array;
  readonly #lens: Int32Array;
  readonly #wanted: Int32Array;
  #rows = 0;

  constructor(config: ModelConfig, sizes: CachedDecoderSizes) {
    const arena = new Arena();
    this.arena = arena;
    this.#config = config;
    this.weights = new WeightSet(arena, config);
    const { qDim, kvDim, qkvDim } = this.weights.layout;
    ({ cos: this.#cos, sin: this.#sin } = ropeTables(arena, config));
    this.pages = new KvPages(sizes.kvPages);
    this.rowsMax = sizes.rowsMax;
    this.logitsStride = this.weights.vocabPadded;
    this.logitsRowsMax = Math.max(1, Math.min(sizes.rowsMax, Math.floor(sizes.logitsBytesMax / (this.logitsStride * 4))));
    const pool = () => arena.alloc(sizes.kvPages * pageRows * kvDim);
    this.#keys = Array.from({ length: config.layers }, pool);
    this.#values = Array.from({ length: config.layers }, pool);
    this.#tablesAt = arena.alloc(sizes.slots * config.positionsMax);
    const rows = sizes.rowsMax;
    this.#at = {
      ids: arena.alloc(rows),
      positions: arena.alloc(rows),
      kvRows: arena.alloc(rows),
      tableOf: arena.alloc(rows),
      lens: arena.alloc(rows),
      wanted: arena.alloc(this.logitsRowsMax),
      x: arena.alloc(rows * config.hiddenSize),
      h: arena.alloc(rows * config.hiddenSize),
      qkv: arena.alloc(rows * qkvDim),
      att: arena.alloc(rows * qDim),
      gateUp: arena.alloc(rows * 2 * config.intermediateSize),
      act: arena.alloc(rows * config.intermediateSize),
      rstd: arena.alloc(rows * Math.max(config.heads, config.kvHeads)),
      scratch: arena.alloc(config.positionsMax + 4),
      logits: arena.alloc(this.logitsRowsMax * this.logitsStride),
      staged: arena.alloc(stagedFloats),
      sampler: arena.alloc(samplerFloats(this.logitsStride)),
    };
    this.#tables = arena.i32(this.#tablesAt, sizes.slots * config.positionsMax);
    this.#ids = arena.i32(this.#at.ids, rows);
    this.#positions = arena.i32(this.#at.positions, rows);
    this.#kvRows = arena.i32(this.#at.kvRows, rows);
    this.#tableOf = arena.i32(this.#at.tableOf, rows);
    this.#lens = arena.i32(this.#at.lens, rows);
    this.#wanted = arena.i32(this.#at.wanted, this.logitsRowsMax);
  }

  /** Checksum of the given parameters, or of those in use. */
  checksum(values?: Float32Array<ArrayBuffer>): string {
    const { count } = this.weights.layout;
    if (values === undefined || values.buffer === this.weights.view().buffer) return checksumHex(this.arena, this.weights.base, count * 4);
    invariant(values.length === count, "L1: a checksum is taken over all parameters");
    return checksumHexOf(this.arena, values, this.#at.staged, stagedFloats);
  }

  /** A sampler over this decoder's logits. */
  sampler(): Sampler {
    return new Sampler(this.arena, this.#config.vocabSize, this.logitsStride, this.#at.sampler);
  }

  /** Gives a slot its pages: token `i` of its request lies in page `i / pageRows`. */
  mapSlot(slot: number, pages: readonly number[]): void {
    const base = slot * this.#config.positionsMax;
    const end = Math.min(pages.length * pageRows, this.#config.positionsMax);
    for (let i = 0; i < end; i++) this.#tables[base + i] = (pages[Math.floor(i / pageRows)] ?? 0) * pageRows + (i % pageRows);
  }

  /** Starts a step. */
  begin(): void {
    this.#rows = 0;
  }

  get rows(): number {
    return this.#rows;
  }

  /** Adds one token of a slot's request; rows of one request come in order of position. Returns the row's number. */
  push(token: number, position: number, slot: number): number {
    const row = this.#rows++;
    invariant(
      row < this.rowsMax && token >= 0 && token < this.#config.vocabSize && position < this.#config.positionsMax,
      "D2: a row fits the step and the model",
    );
    const table = slot * this.#config.positionsMax;
    this.#ids[row] = token;
    this.#positions[row] = position;
    this.#kvRows[row] = this.#tables[table + position] ?? 0;
    this.#tableOf[row] = this.#tablesAt + table * 4;
    this.#lens[row] = position + 1;
    return row;
  }

  /** Runs the pushed rows through all layers and writes their keys and values. */
  forward(): void {
    const n = this.#rows;
    const c = this.#config;
    const at = this.#at;
    const { layout, layers, embed } = this.weights;
    const { qDim, kvDim, qkvDim } = layout;
    const { hiddenSize: d, intermediateSize: f, headDim, heads, kvHeads, normEps } = c;
    const k = this.arena.kernels;
    const keyAt = at.qkv + qDim * 4;
    k.gatherRows(at.ids, embed, at.x, n, d);
    for (let l = 0; l < c.layers; l++) {
      const w = layers[l];
      const keys = this.#keys[l];
      const values = this.#values[l];
      if (w === undefined || keys === undefined || values === undefined) break;
      k.rmsNorm(at.x, d, w.inputNorm, at.h, d, at.rstd, n, 1, d, normEps);
      k.gemm(n, qkvDim, d, at.h, d, 1, w.qkvT, qkvDim, at.qkv, qkvDim, 0);
      if (c.qkNorm) {
        k.rmsNorm(at.qkv, qkvDim, w.qNorm, at.qkv, qkvDim, at.rstd, n, heads, headDim, normEps);
        k.rmsNorm(keyAt, qkvDim, w.kNorm, keyAt, qkvDim, at.rstd, n, kvHeads, headDim, normEps);
      }
      k.rope(at.qkv, qkvDim, n, heads + kvHeads, headDim, at.positions, this.#cos, this.#sin, 0);
      k.storeRows(keyAt, qkvDim, at.kvRows, keys, n, kvDim);
      k.storeRows(keyAt + kvDim * 4, qkvDim, at.kvRows, values, n, kvDim);
      k.attendCached(
        at.qkv,
        qkvDim,
        n,
        at.tableOf,
        at.lens,
        keys,
        values,
        heads,
        kvHeads,
        headDim,
        1 / Math.sqrt(headDim),
        at.att,
        qDim,
        at.scratch,
      );
      k.gemm(n, d, qDim, at.att, qDim, 1, w.oT, d, at.x, d, 1);
      k.rmsNorm(at.x, d, w.postNorm, at.h, d, at.rstd, n, 1, d, normEps);
      k.gemm(n, 2 * f, d, at.h, d, 1, w.gateUpT, 2 * f, at.gateUp, 2 * f, 0);
      k.swiglu(at.gateUp, at.act, n, f);
      k.gemm(n, d, f, at.act, f, 1, w.downT, d, at.x, d, 1);
    }
  }

  /** Logits of up to `logitsRowsMax` rows of the step just run; returns the byte address of the first, `logitsStride` floats apart. */
  logits(rows: readonly number[]): number {
    const n = rows.length;
    invariant(n <= this.logitsRowsMax, "D2: logits are asked for in parts that fit");
    const { hiddenSize: d, normEps } = this.#config;
    const at = this.#at;
    const k = this.arena.kernels;
    this.#wanted.set(rows);
    k.gatherRows(at.wanted, at.x, at.h, n, d);
    k.rmsNorm(at.h, d, this.weights.finalNorm, at.h, d, at.rstd, n, 1, d, normEps);
    k.gemm(n, this.logitsStride, d, at.h, d, 1, this.weights.headT, this.logitsStride, at.logits, this.logitsStride, 0);
    return at.logits;
  }
}
