import { invariant, SlimeError } from "@slime/core";
import type { Sample, SampleColumns, SampleSummary } from "./sample.js";

/**
 * Samples as columns, rows in the given order.
 * C1: every response column of a row has as many elements as the row's response has tokens.
 * C2: a row's weight spans ascend and cover its response without gaps.
 * A row without a reward cannot train: @throws `reward.failed` that names the instance.
 */
export function toColumns(samples: readonly Sample[], rewardKey: string | null): SampleColumns {
  const rows = samples.length;
  const tokensAll = samples.reduce((sum, sample) => sum + sample.promptTokens.length + sample.responseTokens.length, 0);
  const responseAll = samples.reduce((sum, sample) => sum + sample.responseTokens.length, 0);
  const spansAll = samples.reduce((sum, sample) => sum + sample.weightSpans.length, 0);
  const columns = {
    rows,
    tokens_L: new Int32Array(tokensAll),
    tokenOffsets_N: new Int32Array(rows + 1),
    responseLengths_N: new Int32Array(rows),
    responseOffsets_N: new Int32Array(rows + 1),
    lossMask_T: new Uint8Array(responseAll),
    rolloutLogProbs_T: new Float32Array(responseAll),
    rewards_N: new Float32Array(rows),
    truncated_N: new Uint8Array(rows),
    sampleIndices_N: new Int32Array(rows),
    groupIndices_N: new Int32Array(rows),
    rolloutIds_N: new Int32Array(rows),
    spanOffsets_N: new Int32Array(rows + 1),
    spans: new Int32Array(spansAll * 4),
    instanceIds_N: samples.map((sample) => sample.instanceId),
  } satisfies SampleColumns;

  let token = 0;
  let response = 0;
  let span = 0;
  for (const [row, sample] of samples.entries()) {
    checkLengths(sample);
    const length = sample.responseTokens.length;
    columns.tokens_L.set(sample.promptTokens, token);
    columns.tokens_L.set(sample.responseTokens, token + sample.promptTokens.length);
    columns.rolloutLogProbs_T.set(sample.responseLogProbs, response);
    for (let at = 0; at < length; at++) {
      columns.lossMask_T[response + at] = sample.removeSample ? 0 : (sample.lossMask?.[at] ?? 1);
    }
    for (const part of sample.weightSpans) {
      columns.spans.set([part.version, part.from, part.to, part.mixed ? 1 : 0], span * 4);
      span++;
    }
    token += sample.promptTokens.length + length;
    response += length;
    columns.tokenOffsets_N[row + 1] = token;
    columns.responseOffsets_N[row + 1] = response;
    columns.spanOffsets_N[row + 1] = span;
    columns.responseLengths_N[row] = length;
    columns.rewards_N[row] = trainingReward(sample, rewardKey);
    columns.truncated_N[row] = sample.status === "truncated" ? 1 : 0;
    columns.sampleIndices_N[row] = sample.index;
    columns.groupIndices_N[row] = sample.groupIndex;
    columns.rolloutIds_N[row] = sample.rolloutId;
  }
  return columns;
}

/** One row of several parts: `part` indexes the parts, `row` the rows of that part. */
export interface RowAddress {
  readonly part: number;
  readonly row: number;
}

/** The addressed rows of several column sets as one, in the order asked for. */
export function selectRows(parts: readonly SampleColumns[], addresses: readonly RowAddress[]): SampleColumns {
  const from = addresses.map(({ part, row }) => {
    const columns = parts[part];
    invariant(columns !== undefined && row >= 0 && row < columns.rows, `no row ${row} in part ${part}`);
    return { columns, row };
  });
  const ints = (length: number) => new Int32Array(length);
  const tokens = gather(
    from,
    (c) => c.tokens_L,
    (c) => c.tokenOffsets_N,
    ints,
  );
  const masks = gather(
    from,
    (c) => c.lossMask_T,
    (c) => c.responseOffsets_N,
    (length) => new Uint8Array(length),
  );
  const logProbs = gather(
    from,
    (c) => c.rolloutLogProbs_T,
    (c) => c.responseOffsets_N,
    (length) => new Float32Array(length),
  );
  const spans = gather(
    from,
    (c) => c.spans,
    (c) => c.spanOffsets_N,
    ints,
    4,
  );
  const pick = (column: (c: SampleColumns) => ArrayLike<number>) => from.map(({ columns, row }) => column(columns)[row] ?? 0);
  return {
    rows: from.length,
    tokens_L: tokens.values,
    tokenOffsets_N: tokens.offsets,
    responseLengths_N: Int32Array.from(pick((c) => c.responseLengths_N)),
    responseOffsets_N: masks.offsets,
    lossMask_T: masks.values,
    rolloutLogProbs_T: logProbs.values,
    rewards_N: Float32Array.from(pick((c) => c.rewards_N)),
    truncated_N: Uint8Array.from(pick((c) => c.truncated_N)),
    sampleIndices_N: Int32Array.from(pick((c) => c.sampleIndices_N)),
    groupIndices_N: Int32Array.from(pick((c) => c.groupIndices_N)),
    rolloutIds_N: Int32Array.from(pick((c) => c.rolloutIds_N)),
    spanOffsets_N: spans.offsets,
    spans: spans.values,
    instanceIds_N: from.map(({ columns, row }) => columns.instanceIds_N[row] ?? ""),
  };
}

/** What the driver keeps of a sample. `reward` is null when the sample failed or nobody scored it. */
export function summarise(sample: Sample, rewardKey: string | null): SampleSummary {
  const trained = sample.weightSpans.filter((span) => span.to > span.from);
  const versions = trained.map((span) => span.version);
  const scored = sample.failure === null && sample.reward !== null;
  return {
    index: sample.index,
    groupIndex: sample.groupIndex,
    rolloutId: sample.rolloutId,
    instanceId: sample.instanceId,
    status: sample.status,
    promptLength: sample.promptTokens.length,
    responseLength: sample.responseTokens.length,
    effectiveLength: sample.removeSample
      ? 0
      : sample.lossMask === null
        ? sample.responseTokens.length
        : sample.lossMask.reduce((sum, bit) => sum + bit, 0),
    reward: scored ? trainingReward(sample, rewardKey) : null,
    rewards: typeof sample.reward === "object" ? sample.reward : null,
    weightVersionMin: versions.length === 0 ? null : Math.min(...versions),
    weightVersionMax: versions.length === 0 ? null : Math.max(...versions),
    mixed: trained.some((span) => span.mixed),
    removeSample: sample.removeSample,
    failure: sample.failure,
  };
}

function trainingReward(sample: Sample, rewardKey: string | null): number {
  const reward = typeof sample.reward === "number" ? sample.reward : rewardKey === null ? undefined : sample.reward?.[rewardKey];
  if (reward !== undefined && Number.isFinite(reward)) return reward;
  const reason =
    sample.reward === null
      ? "it has no reward"
      : typeof sample.reward === "number"
        ? `its reward is ${sample.reward}`
        : `its reward has the keys ${Object.keys(sample.reward).join(", ")}: name one with --reward-key`;
  throw new SlimeError("reward.failed", `sample ${sample.index} of prompt ${sample.instanceId} cannot train: ${reason}`, {
    instanceId: sample.instanceId,
    reason,
  });
}

function checkLengths(sample: Sample): void {
  const length = sample.responseTokens.length;
  invariant(
    sample.responseLogProbs.length === length,
    `C1: sample ${sample.index} has ${length} tokens and ${sample.responseLogProbs.length} log-probs`,
  );
  invariant(sample.lossMask === null || sample.lossMask.length === length, `C1: sample ${sample.index} has a loss mask of another length`);
  let at = 0;
  for (const span of sample.weightSpans) {
    invariant(span.from === at && span.to >= span.from, `C2: weight spans of sample ${sample.index} leave a gap at ${at}`);
    at = span.to;
  }
  invariant(at === length, `C2: weight spans of sample ${sample.index} end at ${at} of ${length}`);
}

type Rows = readonly { readonly columns: SampleColumns; readonly row: number }[];

/** Copies the rows' slices of one ragged column into `out`; `width` values lie behind one offset step. */
function gather<A extends Int32Array | Float32Array | Uint8Array>(
  from: Rows,
  column: (columns: SampleColumns) => A,
  offsets: (columns: SampleColumns) => Int32Array,
  make: (length: number) => A,
  width = 1,
): { readonly values: A; readonly offsets: Int32Array } {
  const outOffsets = new Int32Array(from.length + 1);
  for (const [at, { columns, row }] of from.entries()) {
    const length = (offsets(columns)[row + 1] ?? 0) - (offsets(columns)[row] ?? 0);
    outOffsets[at + 1] = (outOffsets[at] ?? 0) + length;
  }
  const values = make((outOffsets[from.length] ?? 0) * width);
  for (const [at, { columns, row }] of from.entries()) {
    const part = column(columns).subarray((offsets(columns)[row] ?? 0) * width, (offsets(columns)[row + 1] ?? 0) * width);
    values.set(part, (outOffsets[at] ?? 0) * width);
  }
  return { values, offsets: outOffsets };
}
