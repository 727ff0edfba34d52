import type { Reward, Sample } from "./sample.js";

/**
 * What user code may plug in, as a TypeScript/JavaScript module or a Python file. A path flag reads `FILE` or `FILE:NAME`.
 * Python files get the same arguments: `args` with upstream's attribute names, `sample` with the fields below in snake_case.
 * Names looked for when a path names none, in this order; a Python class `CustomRewardModel` is built with the model's path.
 */
export const rewardHookNames = ["reward", "custom_rm", "reward_func"] as const;

/** The run's configuration under upstream's names (`rollout_batch_size`), read-only. */
export type HookArgs = Readonly<Record<string, unknown>>;

/** `--custom-rm-path`: scores one sample. Anything but finite numbers is a failure of the sample, never a zero. */
export type RewardHook = (args: HookArgs, sample: Sample) => Reward | Promise<Reward>;

/** The same with `--group-rm`: scores all samples of one prompt, in order. */
export type GroupRewardHook = (args: HookArgs, samples: readonly Sample[]) => readonly Reward[] | Promise<readonly Reward[]>;

/** Splits `FILE:NAME`; a drive letter or URL is no name. */
export function parseHookPath(path: string): { readonly file: string; readonly name: string | null } {
  const match = /^(.*\.(?:ts|mts|js|mjs|cjs|py)):([A-Za-z_$][\w$]*)$/.exec(path);
  return match === null ? { file: path, name: null } : { file: match[1] ?? path, name: match[2] ?? null };
}
