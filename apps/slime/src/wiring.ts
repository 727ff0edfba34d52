import type { Clock, Logger, Random } from "@slime/core";
import { reportPhase, type Session } from "@slime/runtime";
import type { OpenedRun, ProgressSink, RunPorts } from "@slime/training";
import { bindActors } from "./run/bind-actors.js";
import type { RunData } from "./run-data.js";

export interface WiringParts {
  readonly session: Session;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly progress: ProgressSink;
}

/** A run's whole world. Disposing ends its actors. */
export interface CreatedRun extends AsyncDisposable {
  readonly ports: RunPorts;
}

/** Binds a run directory, its data and a cluster to the ports of the loop. What the run does now is told to the cluster too. */
export async function createRun(run: OpenedRun, data: RunData, parts: WiringParts): Promise<CreatedRun> {
  const { clock, log } = parts;
  const progress: ProgressSink = {
    update(line) {
      parts.progress.update(line);
      reportPhase(line);
    },
    done: (line) => parts.progress.done(line),
  };
  const actors = await bindActors(run.config, { ...parts, root: run.paths.root, say: progress.update });
  return {
    ports: {
      source: data.source,
      ledger: run.ledger,
      evalSets: data.evalSets,
      rollouts: actors.rollouts,
      trainer: actors.trainer,
      fleet: actors.fleet,
      canaryTokens: data.canaryTokens,
      storage: run.storage,
      metrics: run.metrics,
      spans: run.spans,
      progress,
      clock,
      log,
    },
    [Symbol.asyncDispose]: () => actors[Symbol.asyncDispose](),
  };
}
