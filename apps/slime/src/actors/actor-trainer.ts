import {
  type Collective,
  type ExportedWeights,
  type ModelTag,
  type Op,
  type RankBatch,
  type SampleColumns,
  selectRows,
  type TokenValues,
  type TrainerInfo,
  type TrainerInit,
  type TrainerRank,
  type TrainStepResult,
} from "@slime/backend";
import { invariant, SlimeError } from "@slime/core";
import { EmbeddedTrainer, soloCollective } from "@slime/embedded";
import { type ActorHandle, ctx, defineActors, get, type ObjectRef } from "@slime/runtime";
import { exportToDisk } from "./disk-export.js";
import { RankSum } from "./rank-sum.js";
import { type ExportOnRank, type OpHeader, type TrainOnRank, withSignal } from "./trainer-protocol.js";

export interface ActorTrainerOptions {
  readonly rank: number;
  readonly worldSize: number;
  readonly init: TrainerInit;
}

/**
 * One rank of the trainer gang. It reads its rows out of the object store, so that no token passes through the driver.
 * A gang call reaches every rank with the same opId; what a rank answers to a repeated one is recorded by the rank itself (B2).
 */
export class ActorTrainer {
  /** Shares of a sum arrive while the root itself is in a step. */
  static readonly methodGroups = { reduce: "sum" };
  readonly #options: ActorTrainerOptions;
  readonly #sum: RankSum;
  #root: ActorHandle<ActorTrainer> | null = null;
  #trainer: TrainerRank | null = null;

  constructor(options: ActorTrainerOptions) {
    this.#options = options;
    this.#sum = new RankSum(options.worldSize);
  }

  /** Tells this rank who adds up; called once on every rank before `start`. */
  connect(root: ActorHandle<ActorTrainer>): void {
    this.#root = root;
  }

  async start(header: OpHeader, request: { readonly checkpoint: string | null }): Promise<TrainerInfo> {
    const op = withSignal(header);
    ctx().phase("loading the model");
    await this.#trainer?.close();
    this.#trainer = new EmbeddedTrainer({ collective: this.#collective() });
    return this.#trainer.init(op, { ...this.#options.init, load: request.checkpoint });
  }

  async train(
    header: OpHeader,
    request: TrainOnRank,
  ): Promise<{
    readonly steps: readonly TrainStepResult[];
    readonly timers: Readonly<Record<string, number>>;
    readonly rolloutMetrics: Readonly<Record<string, number>>;
  }> {
    const op = withSignal(header);
    const timers: Record<string, number> = {};
    const timed = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
      const started = performance.now();
      ctx().phase(name);
      const value = await work();
      timers[name] = (timers[name] ?? 0) + (performance.now() - started) / 1_000;
      return value;
    };
    const parts = await timed("data_preprocess", () => get(request.parts as readonly ObjectRef<SampleColumns>[]));
    const batches = request.steps.map((step) => rankBatch(parts, request.rolloutId, step));
    const values = async (name: string, tag: ModelTag, wanted: boolean) =>
      wanted
        ? await timed(name, () => inTurn(batches, (batch, at) => this.#rank().computeLogProbs(sub(op, `${name}.${at}`), { tag, batch })))
        : null;
    const ref = request.refLogProbs ?? (await values("ref_log_probs", "ref", request.needRefLogProbs));
    const old = await values("log_probs", "actor", request.needOldLogProbs);
    const steps = await timed("actor_train", () =>
      inTurn(batches, (batch, at) =>
        this.#rank().trainStep(sub(op, `step.${at}`), {
          batch,
          globalBatchSize: request.steps[at]?.globalBatchSize ?? 0,
          globalTokens: request.steps[at]?.globalTokens ?? 0,
          oldLogProbs: old?.[at] ?? null,
          refLogProbs: ref?.[at] ?? null,
        }),
      ),
    );
    if (request.updateRefAfter) await this.#rank().updateRef(sub(op, "ref"));
    ctx().phase("idle");
    return { steps, timers, rolloutMetrics: { ...mean("log_probs", old), ...mean("ref_log_probs", ref) } };
  }

  async exportWeights(header: OpHeader, request: ExportOnRank): Promise<ExportedWeights | null> {
    const op = withSignal(header);
    ctx().phase("exporting weights");
    const { version, directory, disk } = request;
    const weights = await this.#rank().exportWeights(op, { version, directory });
    const model = this.#options.init.hfCheckpoint;
    const exported = weights === null || disk === null ? weights : await exportToDisk({ ...disk, weights, version, model });
    ctx().phase("idle");
    return exported;
  }

  /** Log-probs of `tokens[1…]` under the current weights; null where this rank has none. */
  async probe(op: OpHeader, request: { readonly tokens: readonly number[]; readonly temperature: number }): Promise<TokenValues | null> {
    const [first, ...rest] = request.tokens;
    invariant(first !== undefined && rest.length > 0, "a probe has at least two tokens");
    return this.#rank().computeLogProbs(withSignal(op), { tag: "actor", batch: probeBatch(first, rest), temperature: request.temperature });
  }

  async save(
    op: OpHeader,
    request: { readonly directory: string; readonly rolloutId: number },
  ): Promise<{ readonly files: readonly string[] }> {
    const own = withSignal(op);
    ctx().phase("saving");
    const saved = await this.#rank().save(own, request);
    ctx().phase("idle");
    return saved;
  }

  /** One rank's share of a sum; answered with the total once all ranks have brought theirs. Only the root is asked. */
  reduce(key: string, rank: number, values: Float32Array): Promise<Float32Array> {
    return this.#sum.add(key, rank, values);
  }

  async onShutdown(): Promise<void> {
    await this.#trainer?.close();
  }

  #rank(): TrainerRank {
    if (this.#trainer !== null) return this.#trainer;
    throw new SlimeError("engine.state", "the trainer rank was not started", {
      engine: `trainer rank ${this.#options.rank}`,
      state: "new",
      wanted: "started",
    });
  }

  #collective(): Collective {
    const { rank, worldSize } = this.#options;
    if (worldSize === 1) return soloCollective;
    const root = this.#root;
    invariant(root !== null, "connect comes before start");
    return {
      rank,
      size: worldSize,
      allReduceSum: async (key, values, signal) => {
        const total =
          rank === 0
            ? await this.#sum.add(key, 0, values.slice())
            : await root.reduce.options(signal === undefined ? {} : { signal })(key, rank, values);
        values.set(total);
      },
    };
  }
}
defineActors(import.meta.url, { ActorTrainer });

const sub = (op: Op, name: string): Op => ({ ...op, opId: `${op.opId}/${name}` });

async function inTurn<A, B>(items: readonly A[], work: (item: A, at: number) => Promise<B>): Promise<B[]> {
  const out: B[] = [];
  for (const [at, item] of items.entries()) out.push(await work(item, at));
  return out;
}

function rankBatch(parts: readonly SampleColumns[], rolloutId: number, step: TrainOnRank["steps"][number]): RankBatch {
  const columns = selectRows(parts, step.rows);
  const lossMask_T = columns.lossMask_T.slice();
  for (const [row, masked] of step.masked_N.entries()) {
    if (masked === 1) lossMask_T.fill(0, columns.responseOffsets_N[row], columns.responseOffsets_N[row + 1]);
  }
  return {
    rolloutId,
    columns: { ...columns, lossMask_T },
    advantages_N: step.advantages_N,
    rolloutMaskSums_N: step.rolloutMaskSums_N,
    microBatches: step.microBatches,
  };
}

function probeBatch(first: number, rest: readonly number[]): RankBatch {
  const length = rest.length;
  return {
    rolloutId: -1,
    columns: {
      rows: 1,
      tokens_L: Int32Array.of(first, ...rest),
      tokenOffsets_N: Int32Array.of(0, length + 1),
      responseLengths_N: Int32Array.of(length),
      responseOffsets_N: Int32Array.of(0, length),
      lossMask_T: new Uint8Array(length).fill(1),
      rolloutLogProbs_T: new Float32Array(length),
      rewards_N: Float32Array.of(0),
      truncated_N: Uint8Array.of(0),
      sampleIndices_N: Int32Array.of(0),
      groupIndices_N: Int32Array.of(0),
      rolloutIds_N: Int32Array.of(0),
      spanOffsets_N: Int32Array.of(0, 1),
      spans: Int32Array.of(0, 0, length, 0),
      instanceIds_N: ["probe"],
    },
    advantages_N: Float32Array.of(0),
    rolloutMaskSums_N: Float32Array.of(length),
    microBatches: [Int32Array.of(0)],
  };
}

function mean(name: string, values: readonly (TokenValues | null)[] | null): Readonly<Record<string, number>> {
  const all = (values ?? []).flatMap((each) => (each === null ? [] : [each.values_T]));
  const count = all.reduce((sum, each) => sum + each.length, 0);
  if (count === 0) return {};
  return { [name]: all.reduce((sum, each) => sum + each.reduce((part, value) => part + value, 0), 0) / count };
}
