export { Effects } from "./effects.js";
export { type SimAttempt, simAttempt, simAudit, simSettings } from "./sim-run.js";
export { SimDisk, simStorage } from "./sim-storage.js";
export { type SimOptions, SimWorld, simDefaults, simSamplesPerGroup, simSource } from "./sim-world.js";
