export { Effects } from "./effects.js";
export { type SimAttempt, simAttempt, simAudit, simSettings } from "./sim-run.js";
export { SimDisk, simStorage } from "./sim-storage.js";
export { simDefaults, type SimOptions, simSamplesPerGroup, simSource, SimWorld } from "./sim-world.js";
