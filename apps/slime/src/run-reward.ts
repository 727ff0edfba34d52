import type { Clock } from "@slime/core";
import { checkReward, type RewardSpec, rewardPoolDefaults, rewardSpec } from "@slime/rewards";
import type { RunConfig } from "@slime/rl-config";
import { rewardSettings } from "@slime/training";
import { hookArgs } from "./run/hook-args.js";

/** Which reward a run's flags choose. @throws `config.invalid` or `file.missing` */
export function rewardOf(config: RunConfig): RewardSpec {
  return rewardSpec({ ...rewardSettings(config), python: process.env["SLIME_PYTHON"] ?? "python3", cwd: process.cwd() });
}

/** Loads the run's reward function once, here, so that a broken one is found before any GPU is taken. @throws also `hook.failed` */
export async function checkRunReward(config: RunConfig, clock: Clock): Promise<void> {
  const { startMsMax } = rewardPoolDefaults;
  await checkReward({ start: { spec: rewardOf(config), args: hookArgs(config) }, clock, startMsMax });
}
