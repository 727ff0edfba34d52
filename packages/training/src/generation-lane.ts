/** What is not the trainer's lane: an era's start, and generation. Each resolves with the event that says it is done. */
import { causeChain, SlimeError } from "@slime/core";
import { generateRollout } from "./generation.js";
import type { KnownCheckpoint } from "./known-checkpoints.js";
import type { LoopEvent } from "./loop-state.js";
import { type Era, type RunContext, spanned, trainerOp } from "./run-context.js";

/**
 * Everything back to the checkpoint together (null: to before the first prompt), then trainer and engines up.
 * @param lost why the era before ended, when this process had one: its trainer is ended first.
 */
export async function startJob(context: RunContext, era: Era, from: KnownCheckpoint | null, lost: string | null): Promise<LoopEvent> {
  const { ports, desk, rollouts, tally } = context;
  if (lost !== null) {
    ports.progress.done(`${lost}; back to ${from?.name ?? "the beginning"}`);
    await ports.trainer.reset(lost);
  }
  for (const { rolloutId, parts } of rollouts.values()) {
    await ports.rollouts
      .free(parts)
      .catch((error: unknown) => ports.log.warn("rollout.free.failed", { rolloutId, reason: causeChain(error).join(": ") }));
  }
  rollouts.clear();
  await desk.restore(from?.content ?? null);
  const [info] = await Promise.all([
    trainerOp(context, era, "start", era.opId("trainer.start"), (op) => ports.trainer.start(op, { checkpoint: from?.directory ?? null })),
    trainerOp(context, era, "start", era.opId("fleet.start"), (op) => ports.fleet.start(op)),
  ]);
  if (from !== null && info.step !== from.content.step) {
    const message = `the trainer loaded step ${info.step} from ${from.directory}, its manifest says ${from.content.step}`;
    throw new SlimeError("checkpoint.invalid", message, { path: from.directory, reason: "steps differ" });
  }
  tally.step = info.step;
  return { kind: "started", era: era.number };
}

/** Generates one rollout and keeps it until it trains. */
export async function generationJob(context: RunContext, era: Era, rolloutId: number): Promise<LoopEvent> {
  const { ports, desk, tally, settings, random } = context;
  const parts = { desk, rollouts: ports.rollouts, clock: ports.clock, random, log: ports.log };
  const rollout = await spanned(context, "generation", rolloutId, () =>
    generateRollout(parts, settings.generation, {
      rolloutId,
      opId: era.opId(`rollout.${rolloutId}`),
      groups: settings.generation.groups,
      signal: era.signal,
      onProgress: (done, groups) => {
        context.progressed();
        context.show(`generating ${done}/${groups}`);
      },
    }),
  );
  era.signal.throwIfAborted();
  context.rollouts.set(rolloutId, rollout);
  tally.generatedTokens += rollout.generatedTokens;
  return { kind: "generated", era: era.number, rolloutId };
}
