export { graderNames, graderOf, lastBoxed, type Grader } from "./graders.js";
export { RewardPool, rewardPoolDefaults, type RewardPoolOptions } from "./pool.js";
export type { RewardSpec, Scored, WorkerStart } from "./protocol.js";
export { rewardSpec, type RewardChoice } from "./spec.js";
