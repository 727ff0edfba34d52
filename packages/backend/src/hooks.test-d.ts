import type { GroupRewardHook, HookArgs, RewardHook } from "./hooks.js";
import type { Reward, Sample } from "./sample.js";

/** The hook ABI as users write it: what must compile, and what must not. */
export const number: RewardHook = (_args: HookArgs, sample: Sample) => (sample.response === sample.label ? 1 : 0);
export const named: RewardHook = async (_args, sample) => ({ score: sample.responseTokens.length, exact: 0 });
export const group: GroupRewardHook = (_args, samples) => samples.map((sample): Reward => sample.index);
export const usesArgs: RewardHook = (args) => Number(args["rollout_batch_size"]);

// @ts-expect-error a reward is a number or named numbers, never text
export const text: RewardHook = () => "1";
// @ts-expect-error named rewards are numbers
export const nested: RewardHook = () => ({ score: "1" });
// @ts-expect-error a group answers for every sample
export const oneForAll: GroupRewardHook = () => 1;
// @ts-expect-error samples are read-only
export const mutates: RewardHook = (_args, sample) => (sample.response = "");
