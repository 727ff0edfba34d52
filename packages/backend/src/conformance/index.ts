export { batches, conformanceLoss, same, stepOf, trainerConformance, type TrainerSubject } from "./trainer.js";
