export { type Floats } from "./floats.js";
export { klKinds, klTokens, lowVarKlMax, type KlKind, type KlTokens } from "./kl.js";
export { policyLoss, type ClipOptions, type PolicyLoss, type PolicyLossInput, type PolicyLossKind, type PolicyLossOptions } from "./policy-loss.js";
export { maskSums, reduceTokens, rolloutMaskSums, rolloutMeanWeights, tokenMeanWeights, tokenNormaliser, type ReducerInput } from "./reducers.js";
export { tisWeights, type TisOptions, type TisWeights } from "./tis.js";
