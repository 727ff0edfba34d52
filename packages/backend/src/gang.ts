import { type Clock, deadline, SlimeError } from "@slime/core";
import type { ByRank, Op, PerRank, Trainer, TrainerRank } from "./trainer.js";

/** After one rank failed or the deadline passed, the others get this long to stop before the op is given up. */
export const gangSettleMsDefault = 5_000;

/**
 * Ranks as one gang: each call reaches every rank under one opId.
 * B1: it resolves when every rank answered, keyed by rank in order; one failed rank fails it, stops the others and is named.
 * B3: it settles within the op's deadline plus `settleMsMax`, whatever the ranks do; an answer that comes later is dropped.
 */
export function gangOf(ranks: readonly TrainerRank[], clock: Clock, settleMsMax = gangSettleMsDefault): Trainer {
  const call = async <R, T>(
    name: string,
    op: Op,
    request: PerRank<R>,
    run: (rank: TrainerRank, op: Op, request: R) => Promise<T>,
  ): Promise<ByRank<T>> => {
    const stop = new AbortController();
    using limit = deadline(clock, op.timeoutMs, `${name} of the gang`, op.signal, stop.signal);
    const failures = new Map<number, unknown>();
    const values = new Map<number, T>();
    await new Promise<void>((settle) => {
      const giveUp = () => void clock.after(settleMsMax, settle);
      limit.signal.addEventListener("abort", giveUp, { once: true });
      for (const [rank, each] of ranks.entries()) {
        const one = request.kind === "same" ? request.request : request.requests[rank];
        run(each, { ...op, signal: limit.signal }, one as R)
          .then((value) => values.set(rank, value))
          .catch((error: unknown) => {
            failures.set(rank, error);
            stop.abort(new SlimeError("call.cancelled", `${name}: rank ${rank} failed`, { what: name }));
          })
          .finally(() => {
            if (failures.size + values.size === ranks.length) settle();
          });
      }
    });
    if (values.size === ranks.length) return ranks.map((_, rank) => ({ rank, value: values.get(rank) as T }));
    const silent = ranks.flatMap((_, rank) => (values.has(rank) || failures.has(rank) ? [] : [rank]));
    throw gangFailure(name, { failures, silent, size: ranks.length, reason: limit.signal.reason });
  };
  return {
    worldSize: ranks.length,
    init: (op, request) => call("init", op, request, (rank, each, one) => rank.init(each, one)),
    computeLogProbs: (op, request) => call("computeLogProbs", op, request, (rank, each, one) => rank.computeLogProbs(each, one)),
    trainStep: (op, request) => call("trainStep", op, request, (rank, each, one) => rank.trainStep(each, one)),
    exportWeights: (op, request) => call("exportWeights", op, request, (rank, each, one) => rank.exportWeights(each, one)),
    save: (op, request) => call("save", op, request, (rank, each, one) => rank.save(each, one)),
    load: (op, request) => call("load", op, request, (rank, each, one) => rank.load(each, one)),
    updateRef: async (op) => void (await call("updateRef", op, { kind: "same", request: null }, (rank, each) => rank.updateRef(each))),
    sleep: async (op) => void (await call("sleep", op, { kind: "same", request: null }, (rank, each) => rank.sleep(each))),
    wake: async (op) => void (await call("wake", op, { kind: "same", request: null }, (rank, each) => rank.wake(each))),
    close: async () => void (await Promise.allSettled(ranks.map((rank) => rank.close()))),
  };
}

/** Ranks that stopped because another failed are not to blame; a rank that never answered is, unless one said why it failed. */
function gangFailure(
  name: string,
  op: {
    readonly failures: ReadonlyMap<number, unknown>;
    readonly silent: readonly number[];
    readonly size: number;
    readonly reason: unknown;
  },
): SlimeError {
  const followed = (error: unknown) => SlimeError.is(error, "call.cancelled") || SlimeError.is(error, "wire.broken");
  const own = [...op.failures].filter(([, error]) => !followed(error)).map(([rank]) => rank);
  const guilty = own.length > 0 ? own : op.silent.length > 0 ? op.silent : [...op.failures.keys()];
  const ranks = [...guilty].sort((a, b) => a - b);
  const how = own.length > 0 ? "failed" : op.silent.length > 0 ? "did not answer" : "stopped";
  const cause = ranks.map((rank) => op.failures.get(rank)).find((error) => error !== undefined) ?? op.reason;
  return new SlimeError(
    "gang.rank_failed",
    `${name}: rank ${ranks.join(", ")} of ${op.size} ${how}`,
    { op: name, failedRanks: ranks },
    { cause },
  );
}
