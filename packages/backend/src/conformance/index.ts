export { engineConformance } from "./engine.js";
export type { EngineAbilities, EngineSubject } from "./engine-subject.js";
export { type PushEvent, type PushFault, PushStage, type PushStep, type Release, type StagedHandle } from "./push-stage.js";
export { scoreTokens } from "./score.js";
export { batches, conformanceLoss, same, stepOf, trainerConformance, type TrainerSubject } from "./trainer.js";
export { weightSyncConformance, type WeightSyncOptions, type WeightSyncSubject } from "./weight-sync.js";
