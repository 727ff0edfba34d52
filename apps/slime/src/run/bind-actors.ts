import { join, resolve } from "node:path";
import { type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import { scratchDirectory } from "@slime/object-store";
import { derive, engineModels, type RunConfig } from "@slime/rl-config";
import { actor, type PlacementGroup, type PlacementRow, placementGroup, type Session } from "@slime/runtime";
import { discoverExternal } from "@slime/sglang";
import { type EngineFleet, type Layout, type Rollouts, runLayout, type TrainerGang, trainerInit } from "@slime/training";
import { Router } from "../actors/router.js";
import { rewardOf } from "../run-reward.js";
import { Fleet } from "./fleet.js";
import { lightweight, restarts } from "./lives.js";
import { rolloutsOver } from "./rollouts.js";
import { routerClient, routerSpec } from "./router-of.js";
import { checkServerSettings } from "./server-settings.js";
import { engineActors, startEngines } from "./start-engines.js";
import { startWorkers } from "./start-workers.js";
import { trainerGang } from "./trainer-gang.js";

/** The part of a run's world that is made of actors. Disposing ends them and gives the GPUs back. */
export interface BoundActors extends AsyncDisposable {
  readonly rollouts: Rollouts;
  readonly trainer: TrainerGang;
  readonly fleet: EngineFleet;
}

export interface BindParts {
  readonly session: Session;
  /** The run's directory. */
  readonly root: string;
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
  await checkModels(config, layout);
  const group = placementGroup({
    bundles: Array.from({ length: layout.bundles }, () => ({ GPU: 1, CPU: 1 })),
    strategy: "PACK",
    name: "run",
  });
  const table = await placed(group, parts);
  checkTransport(config, layout, table);
  const asked = routerSpec(config, join(parts.root, "engines"));
  const router = actor(Router, { name: "router", resources: lightweight, ...restarts, args: [asked] });
  const engines = startEngines(config, { layout, group, table, directory: join(parts.root, "engines") });
  await router.ready();
  const { url: routerUrl } = await router.start();
  const workers = startWorkers(config, { routerUrl, reward });
  const fleet = new Fleet({ engines, router, routerAt: (started) => routerClient(asked, started), workers, ...parts });
  const ownReference = layout.referenceBundle !== null;
  const trainer = trainerGang({
    worldSize: layout.trainerBundles.length,
    placementGroup: group,
    firstRow: layout.trainerBundles[0] ?? 0,
    init: trainerInit(config, null),
    refRow: ownReference ? layout.referenceBundle : null,
    exports: {
      directory: scratchDirectory(parts.session.storeDir, parts.session.jobId, "weights"),
      disk:
        config.updateWeightTransport === "disk"
          ? { directory: resolve(config.updateWeightDiskDir ?? join(parts.root, "weights")), keepAll: config.updateWeightDiskKeepFiles }
          : null,
    },
    onDeath: (reason) => fleet.emit({ kind: "trainer.died", reason }),
  });
  return {
    rollouts: rolloutsOver(workers, parts),
    trainer,
    fleet,
    async [Symbol.asyncDispose]() {
      parts.say("ending the run's actors");
      fleet.close();
      await Promise.allSettled([
        trainer.end(),
        ...[...engineActors(engines), ...workers, router].map((each) => each.kill({ graceMs: 5_000 })),
      ]);
      await group.remove().catch((error: unknown) => parts.log.warn("run.group_not_removed", { error: String(error) }));
    },
  };
}

async function placed(group: PlacementGroup, { say }: BindParts): Promise<readonly PlacementRow[]> {
  const rows = await group.ready({ timeoutMs: null, onWaiting: (reasons) => say(`waiting for ${group.size} GPUs: ${reasons.join("; ")}`) });
  say(rows.map(({ gpuIndex, nodeId }, rank) => `bundle ${rank}: GPU ${gpuIndex ?? "none"} of ${nodeId}`).join(", "));
  return rows;
}

/** Weights in a machine's memory reach the engines of that machine only. */
function checkTransport(config: RunConfig, { trainerBundles, engines }: Layout, table: readonly PlacementRow[]): void {
  if (config.rolloutBackend !== "sglang" || config.updateWeightTransport === "disk") return;
  const home = table[trainerBundles[0] ?? 0]?.address;
  const away = [...new Set(engines.map(({ bundle }) => table[bundle]?.address))].filter((address) => address !== home);
  if (away.length === 0) return;
  const issue = `the trainer is on ${home}, engines are on ${away.join(", ")}: weights go through the memory of one machine; give --update-weight-transport disk and an --update-weight-disk-dir that all of them see`;
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}

/** What can be said of the engines before any GPU is taken. */
async function checkModels(config: RunConfig, layout: Layout): Promise<void> {
  if (config.rolloutExternalEngineAddrs.length > 0) await discoverExternal(config.rolloutExternalEngineAddrs);
  const [first, ...others] = engineModels(config);
  if (others.length > 0) {
    const why = `${others.map(({ name }) => name).join(", ")}: a run generates from its first model only; serve others by a job of their own`;
    throw new SlimeError("unsupported", `--sglang-config: ${why}`, { what: "several models", why });
  }
  if (first !== undefined && !first.updateWeights) {
    const issue = `--sglang-config: model ${first.name} takes no weights, but it is what the run trains: leave update_weights out`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  if (config.rolloutBackend === "sglang" && first !== undefined) await checkServerSettings(config, layout);
}
