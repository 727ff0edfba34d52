import type { RunConfig } from "@slime/rl-config";
import { routerBackoff } from "@slime/rollout";
import { type ActorHandle, actor } from "@slime/runtime";
import { pauseMode, rewardSettings, routerSettings } from "@slime/training";
import { RolloutWorker, type RolloutWorkerOptions } from "../actors/rollout-worker.js";
import { contextLength } from "./context-length.js";
import { hookArgs } from "./hook-args.js";
import { lightweight, restarts } from "./lives.js";

const requestMsMax = 600_000;
/** An engine lets go of a request at most once a push. */
const resumesMax = 64;
const workerControlCalls = 4;

/** The run's rollout workers. */
export function startWorkers(
  config: RunConfig,
  fixed: Pick<RolloutWorkerOptions, "routerUrl" | "reward">,
): readonly ActorHandle<RolloutWorker>[] {
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
    // A push that aborts what runs lets no reply hold tokens of two versions.
    repliesCrossPushes: pauseMode(config) !== "abort",
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
