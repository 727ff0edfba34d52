import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import type {
  Collective,
  ExportedWeights,
  LogProbsRequest,
  ModelTag,
  Op,
  SaveRequest,
  TokenValues,
  TrainerInfo,
  TrainerInit,
  TrainerRank,
  TrainStepRequest,
  TrainStepResult,
} from "@slime/backend";
import { type Clock, deadline, invariant, SlimeError, systemClock } from "@slime/core";
import { appliedStep } from "./applied-record.js";
import { checksumHex } from "./checksum.js";
import { writeFileAtomic } from "./files.js";
import { readModelConfig, readModelWeights } from "./hf-checkpoint.js";
import { emptyTokenValues, StepLoss, spreadRows, summedMetrics } from "./micro-batch-loss.js";
import { checkRows, packSamples, passesOf } from "./packing.js";
import { RecordedOps } from "./recorded-ops.js";
import { TrainerState } from "./trainer-state.js";
import { initialWeights, type WeightSet } from "./weights.js";

/** Exports kept on disk: the last one, and the one an engine may still be reading. */
const exportsKept = 2;

type Phase =
  | { readonly kind: "new" }
  | { readonly kind: "ready"; readonly request: TrainerInit; readonly state: TrainerState }
  | { readonly kind: "closed" };

/**
 * One data-parallel rank of the embedded trainer, in the process of its actor.
 * T1: every rank computes the same update from the same sums, so weights stay equal bit for bit without being sent; T2: a step whose loss or
 * gradient is not finite is refused on every rank before it changes anything; T3: between passes (micro-batches or parts of them) the event loop runs and an abort is seen.
 */
export class EmbeddedTrainer implements TrainerRank {
  readonly #collective: Collective;
  readonly #clock: Clock;
  readonly #ops = new RecordedOps();
  #exports: string[] = [];
  #phase: Phase = { kind: "new" };
  /** Ends when the op before has: ops share the arena, so they never interleave. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: { readonly collective: Collective; readonly clock?: Clock }) {
    this.#collective = options.collective;
    this.#clock = options.clock ?? systemClock;
  }

  init(op: Op, request: TrainerInit): Promise<TrainerInfo> {
    return this.#run(op, "init", async () => {
      invariant(this.#phase.kind === "new", "a trainer is initialised once");
      const config = await readModelConfig(request.hfCheckpoint);
      const state = new TrainerState(config);
      state.actor.set(request.fromScratch ? initialWeights(config, request.seed) : await readModelWeights(request.hfCheckpoint, config));
      // A run from scratch that names its own directory as the reference means the weights it starts from.
      if (request.refLoad !== null) {
        const own = request.fromScratch && resolve(request.refLoad) === resolve(request.hfCheckpoint);
        state.setRef(own ? state.actor.view().slice() : await readModelWeights(request.refLoad, config));
      }
      if (request.load !== null) await state.load(request.load, this.#collective);
      this.#phase = { kind: "ready", request, state };
      return this.#info(state);
    });
  }

  /** @throws `unsupported` for a tag this backend does not hold. */
  computeLogProbs(op: Op, { tag, batch, temperature }: LogProbsRequest): Promise<TokenValues | null> {
    return this.#run(op, `computeLogProbs of ${tag}`, async (signal) => {
      const { state, request } = this.#ready();
      const weights = weightsOf(state, tag);
      const out = emptyTokenValues(batch);
      checkRows(batch.columns, state.config);
      for (const rows of batch.microBatches.flatMap((samples) => passesOf(batch.columns, samples, state.config))) {
        await breathe(signal);
        const { logProbs_T } = state.decoder.logProbs(weights, packSamples(batch.columns, rows), temperature ?? request.loss.temperature);
        spreadRows(batch.columns, rows, logProbs_T, out.values_T);
      }
      return out;
    });
  }

  /** One optimizer step over the batch's micro-batches. @throws `trainer.numeric` before anything is changed (T2). */
  trainStep(op: Op, request: TrainStepRequest): Promise<TrainStepResult> {
    return this.#run(op, "trainStep", async (signal) => {
      const { state, request: init } = this.#ready();
      const { batch } = request;
      checkRows(batch.columns, state.config);
      const step = state.step + 1;
      const loss = await StepLoss.begin(request, init.loss, this.#collective, { key: `${op.opId}/advantages`, step, signal });
      state.clearGradients();
      for (const rows of batch.microBatches.flatMap((samples) => passesOf(batch.columns, samples, state.config))) {
        await breathe(signal);
        state.decoder.accumulate(state.actor, packSamples(batch.columns, rows), init.loss.temperature, state.grads, (values) =>
          loss.gradients(rows, values),
        );
      }
      const { sums, gradNorm } = await this.#reduce(state, loss, `${op.opId}/gradients`, step, signal);
      const { lr, lrWarmupSteps, clipGrad } = init.optimizer;
      const stepLr = lr * Math.min(1, step / Math.max(1, lrWarmupSteps));
      state.applyAdam(init.optimizer, stepLr, clipGrad > 0 ? Math.min(1, clipGrad / (gradNorm + 1e-6)) : 1);
      state.applied.push(appliedStep(step, batch.rolloutId, batch.columns));
      const metrics = { ...sums, grad_norm: gradNorm, "lr-pg_0": stepLr, global_batch_size: request.globalBatchSize };
      return { step, metrics, tokens: batch.columns.tokens_L.length };
    });
  }

  /** Sums gradients and metrics over the ranks in one call, and refuses what is not finite (T2). */
  async #reduce(state: TrainerState, loss: StepLoss, key: string, step: number, signal: AbortSignal) {
    const width = state.count + summedMetrics.length;
    const view = state.arena.f32(state.grads, width);
    summedMetrics.forEach((name, i) => {
      view[state.count + i] = loss.sums.get(name) ?? 0;
    });
    // The last point where an abort is heard: once the sums are there, every rank applies the step.
    signal.throwIfAborted();
    if (this.#collective.size > 1) await this.#collective.allReduceSum(key, view, signal);
    const sums: Record<string, number> = {};
    summedMetrics.forEach((name, i) => {
      if (loss.sums.has(name) || name === "loss") sums[name] = view[state.count + i] ?? Number.NaN;
    });
    const gradNorm = Math.sqrt(gradientSquares(state));
    for (const [what, value] of [
      ["loss", sums["loss"] ?? Number.NaN],
      ["gradient norm", gradNorm],
    ] as const) {
      if (!Number.isFinite(value))
        throw new SlimeError(
          "trainer.numeric",
          `the ${what} of step ${step} is ${value}; the step was not applied. Look at this step's rewards and log-probs, or lower --lr`,
          { what, step },
        );
    }
    return { sums, gradNorm };
  }

  /** Writes all weights into one file of single-precision numbers in the layout's order; tensors' offsets are in bytes. Ranks other than 0 have nothing to send (T1). */
  exportWeights(op: Op, { version, directory }: { readonly version: number; readonly directory: string }): Promise<ExportedWeights | null> {
    return this.#run(op, "exportWeights", async () => {
      const { state } = this.#ready();
      if (this.#collective.rank !== 0) return null;
      const { arena, actor, count } = state;
      const path = join(directory, `weights-${version}.bin`);
      const bytes = count * 4;
      const checksum = checksumHex(arena, actor.base, bytes);
      await writeFileAtomic(path, new Uint8Array(actor.view().buffer, actor.base, bytes));
      this.#exports = [...this.#exports.filter((other) => other !== path), path];
      for (const old of this.#exports.splice(0, this.#exports.length - exportsKept)) await rm(old, { force: true });
      return {
        kind: "shared-memory",
        path,
        bytes,
        checksum,
        tensors: actor.layout.tensors.map(({ name, shape, offset }) => ({ name, shape, offset: offset * 4 })),
      };
    });
  }

  save(op: Op, { directory, rolloutId }: SaveRequest): Promise<{ readonly files: readonly string[] }> {
    return this.#run(op, "save", async () => {
      const { state, request } = this.#ready();
      const { rank, size } = this.#collective;
      return { files: await state.save(directory, { rank, size, rolloutId, companionsFrom: request.hfCheckpoint }) };
    });
  }

  load(op: Op, { directory }: { readonly directory: string }): Promise<TrainerInfo> {
    return this.#run(op, "load", async () => {
      const { state } = this.#ready();
      await state.load(directory, this.#collective);
      return this.#info(state);
    });
  }

  updateRef(op: Op): Promise<void> {
    return this.#run(op, "updateRef", async () => this.#ready().state.moveRef());
  }

  /** Nothing to give back: the embedded trainer shares no accelerator. */
  sleep(op: Op): Promise<void> {
    return this.#run(op, "sleep", async () => void this.#ready());
  }

  wake(op: Op): Promise<void> {
    return this.#run(op, "wake", async () => void this.#ready());
  }

  async close(): Promise<void> {
    this.#phase = { kind: "closed" };
    for (const path of this.#exports.splice(0)) await rm(path, { force: true });
  }

  #run<T>(op: Op, what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#ops.run(op.opId, () => {
      const before = this.#last;
      const result = (async () => {
        using limit = deadline(this.#clock, op.timeoutMs, what, op.signal);
        await before;
        limit.signal.throwIfAborted();
        return await work(limit.signal);
      })();
      this.#last = result.catch(() => undefined);
      return result;
    });
  }

  #ready() {
    invariant(this.#phase.kind === "ready", `a trainer is used between init and close, not when ${this.#phase.kind}`);
    return this.#phase;
  }

  #info(state: TrainerState): TrainerInfo {
    const { rank, size } = this.#collective;
    return {
      rank,
      worldSize: size,
      dataParallelRank: rank,
      dataParallelSize: size,
      pipelineRank: 0,
      pipelineSize: 1,
      step: state.step,
      parameters: state.count,
    };
  }
}

function weightsOf(state: TrainerState, tag: ModelTag): WeightSet {
  if (tag === "actor") return state.actor;
  if (tag !== "ref")
    throw new SlimeError("unsupported", `the embedded trainer holds no ${tag} weights: it has actor and ref`, {
      what: `log-probs of ${tag}`,
      why: "the embedded trainer has actor and ref",
    });
  if (state.ref !== null) return state.ref;
  throw new SlimeError("config.invalid", "log-probs of the reference were asked for, but none is loaded: give --ref-load", {
    issues: ["--ref-load: a reference is needed for KL"],
  });
}

/** Σ of squares over the tensors; the gradients lie in one run, whose length is a multiple of 4. */
function gradientSquares(state: TrainerState): number {
  return state.arena.kernels.sumSquares(state.grads, state.count);
}

/** T3: lets health checks and aborts through. */
async function breathe(signal: AbortSignal): Promise<void> {
  await setImmediate();
  signal.throwIfAborted();
}
