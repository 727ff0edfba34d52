import { type SampleColumns, selectRows, type TokenValues, type TrainerInit, type TrainerRank } from "@slime/backend";
import { invariant } from "@slime/core";
import { EmbeddedTrainer, soloCollective } from "@slime/embedded";
import { ctx, defineActors, get, type ObjectRef } from "@slime/runtime";
import { type OpHeader, type TrainOnRank, withSignal } from "./trainer-protocol.js";

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
    await this.#model.init(withSignal(op), this.#init);
  }

  /** Log-probs of one rank's rows, by step. */
  async computeLogProbs(header: OpHeader, request: Pick<TrainOnRank, "rolloutId" | "parts" | "steps">): Promise<readonly TokenValues[]> {
    const op = withSignal(header);
    invariant(this.#model !== null, "start comes before computeLogProbs");
    ctx().phase("log-probs");
    const parts = await get(request.parts as readonly ObjectRef<SampleColumns>[]);
    const out: TokenValues[] = [];
    for (const [at, step] of request.steps.entries()) {
      const batch = {
        rolloutId: request.rolloutId,
        columns: selectRows(parts, step.rows),
        advantages_N: step.advantages_N,
        rolloutMaskSums_N: step.rolloutMaskSums_N,
        microBatches: step.microBatches,
      };
      const values = await this.#model.computeLogProbs({ ...op, opId: `${op.opId}/${at}` }, { tag: "actor", batch });
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
