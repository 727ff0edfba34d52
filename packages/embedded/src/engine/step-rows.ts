import type { CachedDecoder } from "./cached-decoder.js";
import type { Sequence } from "./sequence.js";

/** A row of the step whose logits are wanted: for the prompt token at place `target`, or for the next token when null. */
export type WantedRow = { readonly row: number; readonly sequence: Sequence; readonly target: number | null };

/**
 * Pushes one step's rows to the decoder: a row for each decoding sequence first, then prompts in order of admission, as many tokens as fit.
 * Sequences count as computed up to there. @returns the rows whose logits the step must read.
 */
export function pushStepRows(decoder: CachedDecoder, running: readonly Sequence[]): readonly WantedRow[] {
  const wanted: WantedRow[] = [];
  decoder.begin();
  const push = (sequence: Sequence, count: number) => {
    if (sequence.state.kind !== "running") return;
    const end = sequence.computed + count;
    for (let position = sequence.computed; position < end; position++) {
      const row = decoder.push(sequence.token(position), position, sequence.state.slot);
      const target = sequence.owedInputLogProb(position);
      if (target !== null) {
        sequence.inputLogProbs.push(NaN);
        wanted.push({ row, sequence, target });
      }
      if (position === sequence.length - 1) wanted.push({ row, sequence, target: null });
    }
    sequence.computed = end;
  };
  const isDecoding = (sequence: Sequence) => sequence.length - sequence.computed === 1;
  const decoding = running.filter(isDecoding);
  const prefilling = running.filter((sequence) => !isDecoding(sequence));
  for (const sequence of decoding) push(sequence, 1);
  for (const sequence of prefilling) push(sequence, Math.min(sequence.length - sequence.computed, decoder.rowsMax - decoder.rows));
  return wanted;
}
