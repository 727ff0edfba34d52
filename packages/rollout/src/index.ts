export { type Generated, type GenerationLimits, type Generator, generate, routerBackoff } from "./generation.js";
export { assemble, type GroupDone, type GroupRequest, RolloutRunner, type RunnerParts, type RunnerRequest } from "./runner.js";
export { Semaphore } from "./semaphore.js";
