export { referenceLogProbs } from "./reference.js";
export { randomPacked, roughWeights, tinyConfig } from "./tiny-model.js";
