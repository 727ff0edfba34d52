export { defaultLoss, defaultOptimizer, modelDirectory, randomColumns, rankBatch } from "./batches.js";
export { referenceLogProbs } from "./reference.js";
export { randomPacked, roughWeights, tinyConfig, tinyLlamaConfig } from "./tiny-model.js";
