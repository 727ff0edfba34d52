export { engineConformance } from "./engine.js";
export type { EngineAbilities, EngineSubject } from "./engine-subject.js";
export { type PushEvent, type PushFault, PushStage, type PushStep, type Release, type StagedHandle } from "./push-stage.js";
export { scoreTokens } from "./score.js";
export { batches, conformanceLoss, same, stepOf, type TrainerSubject, trainerConformance } from "./trainer.js";
export { weightSyncConformance } from "./weight-sync.js";
export type { StartWeightSync, WeightSyncOptions, WeightSyncSubject } from "./weight-sync-subject.js";
