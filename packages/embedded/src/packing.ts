import type { SampleColumns } from "@slime/backend";
import { SlimeError } from "@slime/core";
import type { ModelConfig } from "./model-config.js";

/**
 * Sequences laid end to end. `rows` are the positions whose next token is asked about, `targets` those next tokens:
 * for a response token at position t, row t − 1 and its own id. Order: sequence by sequence, token by token.
 */
export interface PackedSequences {
  readonly tokens_L: Int32Array;
  /** Where each sequence begins, and the total at the end. */
  readonly bounds: Int32Array;
  readonly rows: Int32Array;
  readonly targets: Int32Array;
}

/** The response positions of the given samples, packed. @throws `data.invalid` for a sample without a prompt token: nothing predicts its first token. */
export function packSamples(columns: SampleColumns, samples: ArrayLike<number>): PackedSequences {
  let tokens = 0;
  let responses = 0;
  for (let s = 0; s < samples.length; s++) {
    const { length, response } = extent(columns, samples[s] ?? -1);
    tokens += length;
    responses += response;
  }
  const packed = {
    tokens_L: new Int32Array(tokens),
    bounds: new Int32Array(samples.length + 1),
    rows: new Int32Array(responses),
    targets: new Int32Array(responses),
  };
  let at = 0;
  let row = 0;
  for (let s = 0; s < samples.length; s++) {
    const { from, length, response } = extent(columns, samples[s] ?? -1);
    packed.tokens_L.set(columns.tokens_L.subarray(from, from + length), at);
    for (let t = length - response; t < length; t++) {
      packed.rows[row] = at + t - 1;
      packed.targets[row] = columns.tokens_L[from + t] ?? -1;
      row++;
    }
    at += length;
    packed.bounds[s + 1] = at;
  }
  return packed;
}

/** The widest activation of one pass stays within this many floats (512 KB), and so in a core's second-level cache. */
const passFloatsMax = 1 << 17;
/** Below this a pass is too short for its products, however wide the model. */
const passTokensMin = 256;

/**
 * A micro-batch's samples in runs small enough to be computed in cache: two fifths faster on micro-batches of 5,000 tokens. Gradients
 * and metrics add up over the runs, and a token's log-prob is the same bits either way. A longer sample is a run of its own.
 */
export function passesOf(columns: SampleColumns, samples: Int32Array, config: ModelConfig): Int32Array[] {
  const widest = Math.max(2 * config.intermediateSize, (config.heads + 2 * config.kvHeads) * config.headDim);
  const tokensMax = Math.max(passTokensMin, Math.floor(passFloatsMax / widest));
  const passes: Int32Array[] = [];
  let from = 0;
  let tokens = 0;
  samples.forEach((sample, i) => {
    const { length } = extent(columns, sample);
    if (i > from && tokens + length > tokensMax) {
      passes.push(samples.subarray(from, i));
      from = i;
      tokens = 0;
    }
    tokens += length;
  });
  if (samples.length > from) passes.push(samples.subarray(from));
  return passes;
}

/** Where a sample's tokens lie and how many of them are its response. */
function extent(columns: SampleColumns, sample: number): { readonly from: number; readonly length: number; readonly response: number } {
  const from = columns.tokenOffsets_N[sample] ?? 0;
  const length = (columns.tokenOffsets_N[sample + 1] ?? 0) - from;
  const response = columns.responseLengths_N[sample] ?? 0;
  if (length <= response) {
    const issue = `sample ${columns.sampleIndices_N[sample]} (instance ${columns.instanceIds_N[sample]}) has ${length} tokens of which ${response} are its response; a prompt needs at least one token`;
    throw new SlimeError("data.invalid", issue, { file: "batch", issues: [issue] });
  }
  return { from, length, response };
}

/** @throws `data.invalid`, all samples at once, for tokens the model has no embedding for and sequences longer than its positions. */
export function checkRows(columns: SampleColumns, config: ModelConfig): void {
  const issues: string[] = [];
  for (let row = 0; row < columns.rows; row++) {
    const tokens = columns.tokens_L.subarray(columns.tokenOffsets_N[row] ?? 0, columns.tokenOffsets_N[row + 1] ?? 0);
    const name = `sample ${columns.sampleIndices_N[row]} (instance ${columns.instanceIds_N[row]})`;
    if (tokens.length > config.positionsMax) issues.push(`${name} has ${tokens.length} tokens, the model ${config.positionsMax} positions`);
    const foreign = tokens.find((id) => id < 0 || id >= config.vocabSize);
    if (foreign !== undefined) issues.push(`${name} has token id ${foreign}, the vocabulary ${config.vocabSize} entries`);
  }
  if (issues.length > 0)
    throw new SlimeError("data.invalid", `${issues.slice(0, 5).join("; ")}${issues.length > 5 ? `; and ${issues.length - 5} more` : ""}`, {
      file: "batch",
      issues: issues.slice(0, 20),
    });
}
