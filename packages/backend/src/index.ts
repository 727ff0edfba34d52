export { type RowAddress, selectRows, summarise, toColumns } from "./columns.js";
export type {
  Engine,
  EngineInfo,
  EngineLoad,
  FinishReason,
  GenerateRequest,
  GenerateResult,
  PauseMode,
  SamplingParams,
  WeightReceipt,
  WeightUpdate,
} from "./engine.js";
export { gangOf, gangSettleMsDefault } from "./gang.js";
export { type GroupRewardHook, type HookArgs, parseHookPath, type RewardHook, rewardHookNames } from "./hooks.js";
export { type EngineRole, type Router, type RouterPolicy, type RouterStats, type RouterWorker, routerPolicies } from "./router.js";
export type {
  ChatMessage,
  Prompt,
  Reward,
  Sample,
  SampleColumns,
  SampleFailure,
  SampleStatus,
  SampleSummary,
  WeightSpan,
} from "./sample.js";
export { withUnicodeDigits } from "./tokenizer-json.js";
export type {
  ByRank,
  Collective,
  ExportedTensor,
  ExportedWeights,
  LogProbsRequest,
  LossConfig,
  ModelTag,
  Op,
  OptimizerConfig,
  PerRank,
  RankBatch,
  SaveRequest,
  TokenValues,
  Trainer,
  TrainerInfo,
  TrainerInit,
  TrainerRank,
  TrainStepRequest,
  TrainStepResult,
} from "./trainer.js";
export type { EnginePushState, Fence, PushReport, WeightSync } from "./weight-sync.js";
