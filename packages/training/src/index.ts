export type { AppliedStep } from "./applied-record.js";
export { type AuditParts, type AuditRecords, type AuditReport, auditRun, compareRecords, type Finding, type FindingKind } from "./audit.js";
export { assembleBatch, type Batch, type BatchOptions, type TrainGroup } from "./batch.js";
export { type EngineProcess, type Layout, type LayoutMode, layoutOf, type Reservation, reservation, runLayout } from "./layout.js";
export {
  type CheckpointMark,
  initialState,
  type LaneJob,
  type LoopCommand,
  type LoopConfig,
  type LoopEvent,
  type LoopFailure,
  type LoopState,
} from "./loop-state.js";
export { checkpointName, decodeManifest, encodeManifest, type Manifest, manifestFormat } from "./manifest.js";
export { checkpointBelow, type OpenedRun, type OpenRunInput, openRun } from "./open-run.js";
export type {
  EngineFleet,
  EngineHandle,
  EvalRequest,
  EvalResult,
  FleetEvent,
  GroupOutcome,
  PartRef,
  PromptGroup,
  PromptLedger,
  PromptSource,
  RankRows,
  RolloutRequest,
  RolloutResult,
  Rollouts,
  RunPorts,
  StepRows,
  TrainerGang,
  TrainRollout,
  TrainRolloutResult,
} from "./ports.js";
export { reduce, reducerVersion } from "./reducer.js";
export { fileStorage, manifestName, type RunHolder, type RunOwner, type RunPaths, readCheckpoints, runPaths } from "./run-directory.js";
export { findRun, journalEvents, listRuns, newestMetrics, type RunView, readMetrics } from "./run-list.js";
export { type RunRecord, readRunRecord, runFormat } from "./run-record.js";
export type {
  CheckpointFile,
  MetricRecord,
  MetricSink,
  ProgressSink,
  RunStorage,
  SampleRecord,
  Span,
  SpanSink,
  StoredCheckpoint,
} from "./run-records.js";
export { type RunSettings, runSettings, type StalenessPolicy } from "./run-settings.js";
export { type RunOptions, runLoop } from "./run-shell.js";
export type { RunSummary } from "./run-summary.js";
export { readSamples, type SampleSort, samplesDirectoryName } from "./samples.js";
export {
  type DataSettings,
  dataSettings,
  evalDataSettings,
  evalSampling,
  loopConfig,
  lossConfig,
  optimizerConfig,
  pauseMode,
  type RewardSettings,
  type RouterSettings,
  rewardSettings,
  rolloutSampling,
  routerSettings,
  samplingSeed,
  trainerInit,
} from "./settings.js";
export { busyMs, overlapMs } from "./spans.js";
export { type WeightPush, type WeightPushParts, weightPush } from "./weight-push.js";
