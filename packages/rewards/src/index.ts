export { checkReward, type RewardCheck } from "./check.js";
export { type Grader, graderNames, graderOf, lastBoxed } from "./graders.js";
export { RewardPool, type RewardPoolOptions, rewardPoolDefaults } from "./pool.js";
export type { RewardSpec, Scored, WorkerStart } from "./protocol.js";
export { type RewardChoice, rewardSpec } from "./spec.js";
