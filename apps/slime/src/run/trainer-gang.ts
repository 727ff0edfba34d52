import type { ExportedWeights, Op, TokenValues, TrainerInfo, TrainerInit } from "@slime/backend";
import { invariant, SlimeError } from "@slime/core";
import { type ActorHandle, actor, type Gang, gang, type PlacementGroup } from "@slime/runtime";
import type { TrainerGang, TrainRollout } from "@slime/training";
import { ActorTrainer } from "../actors/actor-trainer.js";
import { RefModel } from "../actors/ref-model.js";
import type { ExportOnRank, OpHeader, TrainOnRank } from "../actors/trainer-protocol.js";

export interface TrainerGangOptions {
  readonly worldSize: number;
  readonly placementGroup: PlacementGroup;
  /** Row of the placement table where the trainer's bundles begin. */
  readonly firstRow: number;
  readonly init: Omit<TrainerInit, "load">;
  /** Row of the reference's own bundle; null: the reference lives in the trainer's ranks. */
  readonly refRow: number | null;
  /** Where pushes are laid out. */
  readonly exports: Omit<ExportOnRank, "version">;
  readonly onDeath: (reason: string) => void;
}

type Trainers = Gang<ActorTrainer>;

/** What ranks get to end by themselves when the run is over. */
const endGraceMs = 5_000;

/** The trainer's actors as the loop's port. A gang that died is ended whole; `start` makes the next one on the same bundles. */
export function trainerGang(options: TrainerGangOptions): TrainerGang & { readonly end: () => Promise<void> } {
  let trainers: Trainers | null = null;
  let reference: ActorHandle<RefModel> | null = null;

  const create = async (op: Op): Promise<Trainers> => {
    const made = gang(ActorTrainer, {
      name: "trainer",
      size: options.worldSize,
      placementGroup: options.placementGroup,
      firstRow: options.firstRow,
      resources: { GPU: 1, CPU: 1 },
      concurrencyGroups: { sum: options.worldSize },
      argsOf: (rank) => [{ rank, worldSize: options.worldSize, init: initOf(options) }],
    });
    trainers = made;
    await made.ready({ timeoutMs: op.timeoutMs, ...(op.signal && { signal: op.signal }) });
    for (const [rank, handle] of made.ranks.entries()) {
      handle.onStateChange((status) => {
        if (status.state === "DEAD" && trainers === made) options.onDeath(`trainer rank ${rank}: ${status.death?.message ?? "it died"}`);
      });
    }
    const root = made.ranks[0];
    invariant(root !== undefined, "a gang has a rank");
    await made.all.connect(root);
    return made;
  };

  const refModel = async (op: Op, row: number): Promise<ActorHandle<RefModel>> => {
    const bundle = (await options.placementGroup.ready())[row]?.bundle;
    invariant(bundle !== undefined, "the layout has a bundle for the reference");
    const { refLoad } = options.init;
    const made = actor(RefModel, {
      name: "reference",
      placementGroup: options.placementGroup,
      bundle,
      resources: { GPU: 1, CPU: 1 },
      maxRestarts: 3,
      restartWindowMs: 600_000,
      args: [
        {
          ...options.init,
          load: null,
          refLoad: null,
          hfCheckpoint: refLoad ?? options.init.hfCheckpoint,
          fromScratch: refLoad === null && options.init.fromScratch,
        },
      ],
    });
    await made.start.options({ timeoutMs: op.timeoutMs })(plain(op));
    return made;
  };

  const end = async (graceMs: number): Promise<void> => {
    const before = trainers;
    trainers = null;
    await before?.kill({ graceMs });
  };

  const running = (): Trainers => {
    if (trainers !== null) return trainers;
    throw new SlimeError("actor.unavailable", "the trainer gang is not running", { actorId: "trainer", incarnation: 0, reason: "reset" });
  };
  /** Each operation carries its own deadline and opId; the gang stops the other ranks when one fails. */
  const how = (op: Op) => ({ opId: op.opId, timeoutMs: op.timeoutMs, ...(op.signal && { signal: op.signal }) });

  return {
    worldSize: options.worldSize,
    dataParallelSize: options.worldSize,
    async start(op, request): Promise<TrainerInfo> {
      const all = trainers ?? (await create(op));
      if (options.refRow !== null) reference ??= await refModel(op, options.refRow);
      const infos = await all.all.start.options(how(op))(plain(op), request);
      const info = infos[0];
      invariant(info !== undefined && infos.every((other) => other.step === info.step), "B1: ranks load the same step");
      return info;
    },
    async train(op, request) {
      const asked = Array.from({ length: options.worldSize }, (_, rank) => onRank(request, rank));
      const fromRef = request.needRefLogProbs && reference !== null ? await refLogProbs(reference, op, asked) : null;
      const results = await running()
        .all.train.options(how(op))
        .each((rank) => [plain(op), { ...required(asked[rank]), refLogProbs: fromRef?.[rank] ?? null }]);
      return required(results[0]);
    },
    async exportWeights(op, request): Promise<ExportedWeights> {
      const made = await running().all.exportWeights.options(how(op))(plain(op), { ...request, ...options.exports });
      return required(made.find((exported) => exported !== null) ?? undefined);
    },
    async probe(op, request) {
      const made: readonly (TokenValues | null)[] = await running().all.probe.options(how(op))(plain(op), request);
      return required(made.find((values) => values !== null) ?? undefined).values_T;
    },
    async save(op, request) {
      return { files: (await running().all.save.options(how(op))(plain(op), request)).flatMap((saved) => saved.files) };
    },
    reset: () => end(0),
    end: () => end(endGraceMs),
  };
}

/** Rows of one rank; `each` step's shared numbers beside them. */
function onRank(request: TrainRollout, rank: number): TrainOnRank {
  const steps = request.steps.map((step) => {
    const own = step.ranks.find((ranks) => ranks.dataParallelRank === rank);
    invariant(own !== undefined, `a step has rows for rank ${rank}`);
    const { rows, advantages_N, rolloutMaskSums_N, masked_N, microBatches } = own;
    return {
      rows,
      advantages_N,
      rolloutMaskSums_N,
      masked_N,
      microBatches,
      globalBatchSize: step.globalBatchSize,
      globalTokens: step.globalTokens,
    };
  });
  const { rolloutId, parts, needOldLogProbs, needRefLogProbs, updateRefAfter } = request;
  return { rolloutId, parts, steps, needOldLogProbs, needRefLogProbs, refLogProbs: null, updateRefAfter };
}

async function refLogProbs(
  reference: ActorHandle<RefModel>,
  op: Op,
  asked: readonly TrainOnRank[],
): Promise<readonly (readonly TokenValues[])[]> {
  const out: (readonly TokenValues[])[] = [];
  for (const [rank, { rolloutId, parts, steps }] of asked.entries()) {
    out.push(
      await reference.computeLogProbs.options({ timeoutMs: op.timeoutMs, retries: 1, ...(op.signal && { signal: op.signal }) })(
        { ...plain(op), opId: `${op.opId}/ref.${rank}` },
        { rolloutId, parts, steps },
      ),
    );
  }
  return out;
}

const initOf = ({ init, refRow }: TrainerGangOptions): TrainerInit => ({
  ...init,
  load: null,
  refLoad: refRow === null ? init.refLoad : null,
});

/** Signals do not travel; the call's own takes their place. */
const plain = (op: Op): OpHeader => ({ opId: op.opId, timeoutMs: op.timeoutMs });

function required<T>(value: T | undefined): T {
  invariant(value !== undefined, "a gang answers for every rank");
  return value;
}
