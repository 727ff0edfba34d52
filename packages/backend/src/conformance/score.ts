import { toColumns } from "../columns.js";
import { sampleOf } from "../testing/samples.js";
import type { Op, RankBatch, Trainer } from "../trainer.js";

/** A trainer's log-probs of tokens 1… of a text: the same one row for every rank, as the canary of a push asks for them. */
export async function scoreTokens(trainer: Trainer, op: Op, tokens: readonly number[]): Promise<Float32Array> {
  const [first = 0, ...rest] = tokens;
  const sample = { ...sampleOf(0, { prompt: 1, response: rest.length, cut: rest.length }), promptTokens: [first], responseTokens: rest };
  const columns = toColumns([sample], null);
  const batch: RankBatch = {
    rolloutId: 0,
    columns,
    advantages_N: Float32Array.of(0),
    rolloutMaskSums_N: Float32Array.of(rest.length),
    microBatches: [Int32Array.of(0)],
  };
  const answers = await trainer.computeLogProbs(op, { kind: "same", request: { tag: "actor", batch } });
  return answers.flatMap(({ value }) => (value === null ? [] : [value.values_T])).at(-1) ?? new Float32Array();
}
