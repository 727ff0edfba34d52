import type { HookArgs } from "@slime/backend";
import type { RunConfig } from "@slime/rl-config";

/** The configuration as users' functions know it: upstream's names, `args.rollout_batch_size`. */
export function hookArgs(config: RunConfig): HookArgs {
  return Object.freeze(
    Object.fromEntries(
      Object.entries(config).map(([key, value]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]),
    ),
  );
}
