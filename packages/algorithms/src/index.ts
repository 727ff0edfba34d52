export {
  type AdvantageInput,
  type AdvantageOptions,
  type Advantages,
  discountedReturns,
  distillAdvantages,
  generalisedAdvantages,
  tokenAdvantages,
} from "./advantages.js";
export { type DpSchedule, type Packing, perRankLayout, type ScheduledStep, type ScheduleOptions, scheduleSteps } from "./dp-schedule.js";
export type { Floats } from "./floats.js";
export { forwardFlops, type LatentAttention, type MixtureOfExperts, type ModelShape } from "./flops.js";
export {
  type AdvantageEstimator,
  type GroupNormaliseOptions,
  groupNormalise,
  groupSpreadEps,
  normaliseRewards,
} from "./group-normalise.js";
export { balancedPartitions } from "./karmarkar-karp.js";
export { type KlKind, type KlTokens, klKinds, klTokens, lowVarKlMax } from "./kl.js";
export { type LogitsInput, logitsGradient, type TokenLogProbs, tokenLogProbs } from "./logits.js";
export { type Objective, type ObjectiveInput, type ObjectiveOptions, objective } from "./objective.js";
export { firstFit, splitBins } from "./packing.js";
export {
  type ClipOptions,
  type PolicyLoss,
  type PolicyLossInput,
  type PolicyLossKind,
  type PolicyLossOptions,
  policyLoss,
} from "./policy-loss.js";
export {
  maskSums,
  type ReducerInput,
  reduceTokens,
  rolloutMaskSums,
  rolloutMeanWeights,
  tokenMeanWeights,
  tokenNormaliser,
} from "./reducers.js";
export { passAtK, passRates, type Summary, summarise } from "./statistics.js";
export { type TisOptions, type TisWeights, tisWeights } from "./tis.js";
export { type ValueLoss, valueLoss } from "./value-loss.js";
export { addMoments, type Moments, maskedMoments, whiten } from "./whiten.js";
