import { type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import { scratchDirectory } from "@slime/object-store";
import { derive, type RunConfig } from "@slime/rl-config";
import { routerBackoff } from "@slime/rollout";
import { type ActorHandle, actor, type PlacementGroup, type PlacementRow, placementGroup, type Session } from "@slime/runtime";
import {
  type EngineFleet,
  type Layout,
  type Rollouts,
  rewardSettings,
  routerSettings,
  runLayout,
  samplingSeed,
  type TrainerGang,
  trainerInit,
} from "@slime/training";
import { RolloutEngine } from "../actors/rollout-engine.js";
import { RolloutWorker, type RolloutWorkerOptions } from "../actors/rollout-worker.js";
import { Router } from "../actors/router.js";
import { rewardOf } from "../run-reward.js";
import { contextLength } from "./context-length.js";
import { Fleet } from "./fleet.js";
import { hookArgs } from "./hook-args.js";
import { rolloutsOver } from "./rollouts.js";
import { trainerGang } from "./trainer-gang.js";

/** What an engine, router or worker that dies may be restarted: five times in ten minutes. */
const restarts = { maxRestarts: 5, restartWindowMs: 600_000 };
/** Router and rollout workers mostly wait. They hold no CPU, so that a run which fits its GPUs never waits for room of its own. */
const lightweight = { CPU: 0 };
const requestMsMax = 600_000;
/** An engine lets go of a request at most once a push. */
const resumesMax = 64;
const workerControlCalls = 4;

/** The part of a run's world that is made of actors. Disposing ends them and gives the GPUs back. */
export interface BoundActors extends AsyncDisposable {
  readonly rollouts: Rollouts;
  readonly trainer: TrainerGang;
  readonly fleet: EngineFleet;
}

export interface BindParts {
  readonly session: Session;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** A line for a person: what is waited for now. */
  readonly say: (line: string) => void;
}

/**
 * Reserves the run's GPUs, then makes its actors in the order of their needs: router, engines, rollout workers, trainer (on its first
 * `start`). The layout fixes which bundle each process sits on.
 * @throws `placement.infeasible` with the numbers, before any actor is made.
 */
export async function bindActors(config: RunConfig, parts: BindParts): Promise<BoundActors> {
  const reward = rewardOf(config);
  const layout = runLayout(config, derive(config));
  const group = placementGroup({
    bundles: Array.from({ length: layout.bundles }, () => ({ GPU: 1, CPU: 1 })),
    strategy: "PACK",
    name: "run",
  });
  const table = await placed(group, parts);
  const router = actor(Router, { name: "router", resources: lightweight, ...restarts, args: [routerSettings(config).policy] });
  const engines = startEngines(config, layout, group, table);
  await router.ready();
  const { url: routerUrl } = await router.start();
  const workers = startWorkers(config, { routerUrl, reward });
  const fleet = new Fleet({ engines, router, workers, ...parts });
  const ownReference = layout.referenceBundle !== null;
  const trainer = trainerGang({
    worldSize: layout.trainerBundles.length,
    placementGroup: group,
    firstRow: layout.trainerBundles[0] ?? 0,
    init: trainerInit(config, null),
    refRow: ownReference ? layout.referenceBundle : null,
    exportDirectory: scratchDirectory(parts.session.storeDir, parts.session.jobId, "weights"),
    onDeath: (reason) => fleet.emit({ kind: "trainer.died", reason }),
  });
  return {
    rollouts: rolloutsOver(workers, parts),
    trainer,
    fleet,
    async [Symbol.asyncDispose]() {
      parts.say("ending the run's actors");
      fleet.close();
      await Promise.allSettled([trainer.end(), ...[...engines, ...workers, router].map((each) => each.kill({ graceMs: 5_000 }))]);
      await group.remove().catch((error: unknown) => parts.log.warn("run.group_not_removed", { error: String(error) }));
    },
  };
}

async function placed(group: PlacementGroup, { say }: BindParts): Promise<readonly PlacementRow[]> {
  const rows = await group.ready({ timeoutMs: null, onWaiting: (reasons) => say(`waiting for ${group.size} GPUs: ${reasons.join("; ")}`) });
  say(rows.map(({ gpuIndex, nodeId }, rank) => `bundle ${rank}: GPU ${gpuIndex ?? "none"} of ${nodeId}`).join(", "));
  return rows;
}

function startEngines(
  config: RunConfig,
  layout: Layout,
  group: PlacementGroup,
  table: readonly PlacementRow[],
): readonly ActorHandle<RolloutEngine>[] {
  return layout.engines.map(({ engine, bundle: row, gpus }) => {
    if (gpus > 1) {
      const why = "an embedded engine runs on one (virtual) GPU: set --rollout-num-gpus-per-engine 1";
      throw new SlimeError("unsupported", why, { what: "--rollout-num-gpus-per-engine", why });
    }
    return actor(RolloutEngine, {
      name: `engine-${engine}`,
      placementGroup: group,
      bundle: table[row]?.bundle ?? row,
      resources: { GPU: 1, CPU: 1 },
      ...restarts,
      args: [
        {
          hfCheckpoint: config.hfCheckpoint,
          fromSeed: config.fromScratch ? config.seed : null,
          samplingSeed: (samplingSeed(config) ?? config.seed) + engine,
        },
      ],
    });
  });
}

function startWorkers(config: RunConfig, fixed: Pick<RolloutWorkerOptions, "routerUrl" | "reward">): readonly ActorHandle<RolloutWorker>[] {
  const { rewardKey, evalRewardKey, timeoutMs } = rewardSettings(config);
  const options: RolloutWorkerOptions = {
    ...fixed,
    hfCheckpoint: config.hfCheckpoint,
    chatTemplateKwargs: config.applyChatTemplateKwargs,
    rewardKey,
    evalRewardKey,
    rewardMsMax: timeoutMs,
    hookArgs: hookArgs(config),
    limits: { contextLength: contextLength(config), requestMsMax, resumesMax, backoff: routerBackoff },
    concurrency: Math.max(1, Math.ceil(routerSettings(config).inFlightMax / config.rolloutNumWorkers)),
  };
  return Array.from({ length: config.rolloutNumWorkers }, (_, at) =>
    actor(RolloutWorker, {
      name: `rollout-worker-${at}`,
      resources: lightweight,
      // Chunks run side by side; what they have in flight together is bounded by `concurrency` of the options.
      concurrency: 64,
      concurrencyGroups: { control: workerControlCalls },
      ...restarts,
      args: [options],
    }),
  );
}
