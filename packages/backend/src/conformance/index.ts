export { engineConformance } from "./engine.js";
export type { EngineAbilities, EngineSubject } from "./engine-subject.js";
export { batches, conformanceLoss, same, stepOf, trainerConformance, type TrainerSubject } from "./trainer.js";
