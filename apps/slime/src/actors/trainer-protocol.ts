import type { Op, RowAddress, TokenValues } from "@slime/backend";
import { ctx } from "@slime/runtime";

/** An operation as it crosses the wire: its signal does not, the call's own takes its place. */
export type OpHeader = Pick<Op, "opId" | "timeoutMs">;

/** What one rank is asked to train: its rows of every step of a rollout. */
export interface TrainOnRank {
  readonly rolloutId: number;
  /** References to `SampleColumns`; `rows[].part` indexes them. */
  readonly parts: readonly unknown[];
  readonly steps: readonly {
    readonly rows: readonly RowAddress[];
    readonly advantages_N: Float32Array;
    readonly rolloutMaskSums_N: Float32Array;
    readonly masked_N: Uint8Array;
    readonly microBatches: readonly Int32Array[];
    readonly globalBatchSize: number;
    readonly globalTokens: number;
  }[];
  readonly needOldLogProbs: boolean;
  readonly needRefLogProbs: boolean;
  /** By step, from a `RefModel` of its own; null: this rank's own reference. */
  readonly refLogProbs: readonly TokenValues[] | null;
  readonly updateRefAfter: boolean;
}

/** Where a rank lays out its weights. */
export interface ExportOnRank {
  readonly version: number;
  /** In the machine's memory. */
  readonly directory: string;
  /** And from there on disk, where engines of other machines find it; null: memory is enough. */
  readonly disk: { readonly directory: string; readonly keepAll: boolean } | null;
}

/** An operation as the rank takes it: with the signal of the call that brought it. Called before a method's first `await`, where that call is known. */
export function withSignal(op: OpHeader): Op {
  const signal = ctx().call?.signal;
  return { opId: op.opId, timeoutMs: op.timeoutMs, ...(signal && { signal }) };
}
