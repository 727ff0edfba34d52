/** What the trainer's lane does, one job at a time: train, save, push, eval. Each resolves with the event that says it is done. */
import { causeChain, invariant, SlimeError, sleep } from "@slime/core";
import { assembleBatch, type TrainGroup } from "./batch.js";
import { type FinishedRollout, generateRollout } from "./generation.js";
import type { LaneJob, LoopEvent, LoopState } from "./loop-state.js";
import { checkpointName, encodeManifest, type Manifest, manifestFormat } from "./manifest.js";
import { evalRecord, lagOf, rolloutRecord, trainRecords } from "./metrics.js";
import type { TrainRolloutResult } from "./ports.js";
import { diskFull, type Era, type RunContext, spanned, trainerOp } from "./run-context.js";

/** Does one job of the lane; `state` is the loop's when the job began. */
export function laneJob(context: RunContext, era: Era, state: LoopState, job: LaneJob): Promise<LoopEvent> {
  switch (job.kind) {
    case "train":
      return train(context, era, state, job.rolloutId);
    case "save":
      return spanned(context, "save", job.rolloutId, () => save(context, era, state, job.rolloutId));
    case "push":
      return spanned(context, "push", state.trained, () => push(context, era, state, job.version));
    case "eval":
      return spanned(context, "eval", job.rolloutId, () => evaluate(context, era, job.rolloutId));
  }
}

/** Trains one rollout and says so to the ledger. The weights, the ledger and the cursor agree only in checkpoints; that is enough. */
async function train(context: RunContext, era: Era, state: LoopState, rolloutId: number): Promise<LoopEvent> {
  const { ports, settings, desk, tally } = context;
  const waitMs = ports.clock.nowMs() - tally.laneIdleSinceMs;
  const finished = context.rollouts.get(rolloutId);
  invariant(finished !== undefined, `rollout ${rolloutId} is to train and is not here`);
  const rollout = await fresh(context, era, state, finished);
  const batch = assembleBatch(rollout.groups, settings.batch);
  await desk.drop(
    batch.remainder.map((group) => group.instanceId),
    rolloutId,
    "remainder",
    false,
  );
  const from = ports.clock.nowMs();
  let result: TrainRolloutResult | null = null;
  if (batch.steps.length > 0) {
    result = await spanned(context, "training", rolloutId, () =>
      trainerOp(context, era, "train", era.opId(`train.${rolloutId}`), (op) =>
        ports.trainer.train(op, {
          rolloutId,
          parts: rollout.parts,
          steps: batch.steps,
          needOldLogProbs: settings.needOldLogProbs,
          needRefLogProbs: settings.needRefLogProbs,
          updateRefAfter: settings.refUpdateInterval !== null && (rolloutId + 1) % settings.refUpdateInterval === 0,
        }),
      ),
    );
    checkNumbers(result);
  }
  const trainMs = ports.clock.nowMs() - from;
  const step = result?.steps.at(-1)?.step ?? tally.step;
  era.signal.throwIfAborted();
  await desk.consume(
    batch.trained.map((group) => group.instanceId),
    rolloutId,
    step,
  );
  context.rollouts.delete(rolloutId);
  await ports.rollouts
    .free(rollout.parts)
    .catch((error: unknown) => ports.log.warn("rollout.free.failed", { rolloutId, reason: causeChain(error).join(": ") }));

  const samples = batch.trained.flatMap((group) => group.samples);
  const record = rolloutRecord({
    rollout,
    samples,
    version: state.version,
    result,
    rolloutGpus: settings.rolloutGpus,
    waitMs,
    trainMs,
    failedPrompts: desk.failed,
  });
  ports.metrics.write(record);
  for (const one of trainRecords(result?.steps ?? [])) ports.metrics.write(one);
  tally.step = step;
  tally.trainedTokens += result?.steps.reduce((sum, each) => sum + each.tokens, 0) ?? 0;
  tally.reward = record.values["rollout/raw_reward"] ?? null;
  tally.loss = result?.steps.at(-1)?.metrics["loss"] ?? null;
  context.show(`trained in ${(trainMs / 1_000).toFixed(1)} s`);
  for (const sample of samples) tally.lagMax = Math.max(tally.lagMax, lagOf(sample, state.version));
  return { kind: "trained", era: era.number, rolloutId, step };
}

/** Applies `--max-staleness`: what is older is dropped, replaced or masked. */
async function fresh(context: RunContext, era: Era, state: LoopState, rollout: FinishedRollout): Promise<FinishedRollout> {
  const { settings, desk, ports } = context;
  const { staleness } = settings;
  if (staleness === null) return rollout;
  const isOld = (group: TrainGroup) => group.samples.some((sample) => lagOf(sample, state.version) > staleness.lagMax);
  const old = rollout.groups.filter(isOld);
  if (old.length === 0) return rollout;
  ports.log.info("rollout.stale", { rolloutId: rollout.rolloutId, groups: old.length, policy: staleness.policy, lagMax: staleness.lagMax });
  if (staleness.policy === "mask")
    return { ...rollout, groups: rollout.groups.map((group) => (isOld(group) ? { ...group, masked: true } : group)) };
  await desk.drop(
    old.map((group) => group.instanceId),
    rollout.rolloutId,
    "stale",
    false,
  );
  const kept = {
    ...rollout,
    groups: rollout.groups.filter((group) => !old.includes(group)),
    dropped: { ...rollout.dropped, stale: old.length },
  };
  if (staleness.policy !== "refill") return kept;
  const more = await generateRollout(
    { desk, rollouts: ports.rollouts, clock: ports.clock, random: context.random, log: ports.log },
    settings.generation,
    {
      rolloutId: rollout.rolloutId,
      opId: era.opId(`refill.${rollout.rolloutId}`),
      groups: old.length,
      signal: era.signal,
      onProgress: () => context.progressed(),
    },
  );
  const offset = rollout.parts.length;
  const moved = more.groups.map((group) => ({ ...group, rows: group.rows.map(({ part, row }) => ({ part: part + offset, row })) }));
  const refilled = {
    ...kept,
    parts: [...rollout.parts, ...more.parts],
    groups: [...kept.groups, ...moved].sort((a, b) => a.groupIndex - b.groupIndex),
  };
  context.rollouts.set(rollout.rolloutId, refilled);
  return refilled;
}

/** A number that is none means the weights are spoilt or soon will be: the run stops before it can be saved. */
function checkNumbers(result: TrainRolloutResult): void {
  for (const { step, metrics } of result.steps) {
    for (const what of ["loss", "pg_loss", "grad_norm"]) {
      const value = metrics[what];
      if (value !== undefined && !Number.isFinite(value)) {
        throw new SlimeError(
          "trainer.numeric",
          `${what} of step ${step} is ${value}: stopped before a checkpoint; look at this step's rewards and log-probs, lower --lr, or resume from the last checkpoint with other data`,
          { what, step },
        );
      }
    }
  }
}

async function save(context: RunContext, era: Era, state: LoopState, rolloutId: number): Promise<LoopEvent> {
  const { ports, settings, desk, tally } = context;
  const trained = rolloutId + 1;
  const name = checkpointName(trained);
  try {
    const { directory } = await ports.storage.stage(name);
    const [snapshot] = await Promise.all([
      desk.snapshot(),
      trainerOp(context, era, "save", era.opId(`save.${trained}`), (op) => ports.trainer.save(op, { directory, rolloutId })),
    ]);
    const manifest: Manifest = {
      ...manifestFormat,
      runId: settings.runId,
      name,
      parent: state.checkpoint?.name ?? null,
      attempt: state.attempt,
      era: era.number,
      trained,
      step: tally.step,
      weightVersion: state.versionMax,
      cursor: snapshot.cursor,
      ledger: snapshot.ledger,
      pending: snapshot.pending,
      failures: snapshot.failures,
      files: await ports.storage.staged(name),
      createdAtMs: ports.clock.wallMs(),
    };
    era.signal.throwIfAborted();
    await ports.storage.commit(name, encodeManifest(manifest));
  } catch (error) {
    throw diskFull(error, `checkpoint ${name}`);
  }
  await prune(context);
  return { kind: "saved", era: era.number, checkpoint: { name, trained } };
}

async function prune({ ports, settings }: RunContext): Promise<void> {
  const all = await ports.storage.checkpoints();
  for (const { name } of all.slice(0, Math.max(0, all.length - settings.checkpointsKept))) {
    await ports.storage
      .remove(name)
      .catch((error: unknown) => ports.log.warn("checkpoint.remove.failed", { name, reason: causeChain(error).join(": ") }));
  }
}

/** Between tries of a push that reached no engine; engines come back meanwhile. */
export const pushRetryMs = 1_000;

async function push(context: RunContext, era: Era, state: LoopState, version: number): Promise<LoopEvent> {
  const { ports } = context;
  for (;;) {
    const from = ports.clock.nowMs();
    try {
      const report = await context.push.push({
        version,
        opId: era.opId(`push.${version}`),
        timeoutMs: context.deadlines.timeoutMs("push"),
      });
      context.deadlines.saw("push", ports.clock.nowMs() - from);
      ports.metrics.write({
        axis: "rollout/step",
        step: Math.max(0, state.trained - 1),
        values: {
          "perf/update_weights_time": (ports.clock.nowMs() - from) / 1_000,
          "perf/update_weights_control_time": report.controlMs / 1_000,
          "perf/update_weights_wire_bytes": report.bytes,
        },
      });
      return { kind: "pushed", era: era.number, version };
    } catch (error) {
      era.signal.throwIfAborted();
      if (!SlimeError.is(error, "weights.push")) throw error;
      // The stall watchdog ends this when no engine ever comes back.
      ports.log.warn("push.failed", { version, reason: causeChain(error).join(": ") });
      await sleep(ports.clock, pushRetryMs, era.signal);
    }
  }
}

/** Tries of an evaluation before the run gives up on it. */
export const evalTriesMax = 5;

async function evaluate(context: RunContext, era: Era, rolloutId: number): Promise<LoopEvent> {
  const { ports, settings, tally } = context;
  const samplesRoot = settings.generation.samplesRoot;
  for (let tries = 1; ; tries++) {
    try {
      const sets = await Promise.all(
        ports.evalSets.map(async ({ name, prompts, samplesPerPrompt, sampling }) => {
          const { samples } = await ports.rollouts.evaluate({
            dataset: name,
            opId: era.opId(`eval.${rolloutId}.${name}.${tries}`),
            prompts,
            samplesPerPrompt,
            sampling,
            samplingSeed: settings.evalSamplingSeed,
            samplesDirectory: samplesRoot === null ? null : `${samplesRoot}/eval-${String(rolloutId).padStart(7, "0")}`,
            signal: era.signal,
          });
          return { name, samples, samplesPerPrompt };
        }),
      );
      era.signal.throwIfAborted();
      const record = evalRecord(rolloutId, sets);
      ports.metrics.write(record);
      tally.evals.push({ rolloutId, values: record.values });
      ports.progress.done(
        `eval after ${rolloutId} rollouts: ${sets.map(({ name }) => `${name} ${(record.values[`eval/${name}`] ?? 0).toFixed(3)}`).join(", ")}`,
      );
      return { kind: "evaluated", era: era.number, rolloutId };
    } catch (error) {
      era.signal.throwIfAborted();
      // What the user's function cannot score now it cannot score in a second either.
      if (tries >= evalTriesMax || SlimeError.is(error, "reward.failed")) throw error;
      ports.log.warn("eval.failed", { rolloutId, tries, reason: causeChain(error).join(": ") });
      await sleep(ports.clock, 1_000 * tries, era.signal);
    }
  }
}
