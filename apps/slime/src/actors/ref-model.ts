import { selectRows, type SampleColumns, type TokenValues, type TrainerInit, type TrainerRank } from "@slime/backend";
import { invariant } from "@slime/core";
import { EmbeddedTrainer, soloCollective } from "@slime/embedded";
import { ctx, defineActors, get, type ObjectRef } from "@slime/runtime";
import type { OpHeader, TrainOnRank } from "./trainer-protocol.js";

/** A frozen reference on GPUs of its own: it gives log-probs while the trainer's memory stays the trainer's. */
export class RefModel {
  readonly #init: TrainerInit;
  #model: TrainerRank | null = null;

  constructor(init: TrainerInit) {
    this.#init = init;
  }

  async start(op: OpHeader): Promise<void> {
    ctx().phase("loading the reference");
    this.#model ??= new EmbeddedTrainer({ collective: soloCollective });
    await this.#model.init({ ...op, signal: ctx().call.signal }, this.#init);
  }

  /** Log-probs of one rank's rows, by step. */
  async computeLogProbs(op: OpHeader, request: Pick<TrainOnRank, "rolloutId" | "parts" | "steps">): Promise<readonly TokenValues[]> {
    invariant(this.#model !== null, "start comes before computeLogProbs");
    ctx().phase("log-probs");
    const parts = await get(request.parts as readonly ObjectRef<SampleColumns>[]);
    const out: TokenValues[] = [];
    for (const [at, step] of request.steps.entries()) {
      const batch = { rolloutId: request.rolloutId, columns: selectRows(parts, step.rows), advantages_N: step.advantages_N, rolloutMaskSums_N: step.rolloutMaskSums_N, microBatches: step.microBatches };
      const values = await this.#model.computeLogProbs({ opId: `${op.opId}/${at}`, timeoutMs: op.timeoutMs, signal: ctx().call.signal }, { tag: "actor", batch });
      invariant(values !== null, "a reference without pipeline stages has log-probs");
      out.push(values);
    }
    ctx().phase("idle");
    return out;
  }

  async onShutdown(): Promise<void> {
    await this.#model?.close();
  }
}
defineActors(import.meta.url, { RefModel });
