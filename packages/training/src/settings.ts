/**
 * What each part of a run is told, out of the one configuration: the place where flags get their readers. Pure; no part sees a flag it
 * does not own.
 */
import type { LossConfig, OptimizerConfig, PauseMode, RouterPolicy, SamplingParams, TrainerInit } from "@slime/backend";
import { derive, type LoopLength, type NamedPath, type RunConfig } from "@slime/rl-config";
import type { BatchOptions } from "./batch.js";
import type { LoopConfig } from "./loop-state.js";

/** The loss as the trainer ranks take it. */
export function lossConfig(config: RunConfig): LossConfig {
  return {
    advantageEstimator: config.advantageEstimator,
    epsClip: config.epsClip,
    epsClipHigh: config.epsClipHigh ?? config.epsClip,
    epsClipC: config.epsClipC,
    klCoef: config.klCoef,
    useKlLoss: config.useKlLoss,
    klLossCoef: config.klLossCoef,
    klLossType: config.klLossType,
    useUnbiasedKl: config.useUnbiasedKl,
    entropyCoef: config.entropyCoef,
    calculatePerTokenLoss: config.calculatePerTokenLoss,
    normalizeAdvantages: config.normalizeAdvantages,
    useRolloutLogprobs: config.useRolloutLogprobs,
    useTis: config.useTis,
    tisClip: config.tisClip,
    tisClipLow: config.tisClipLow,
    gamma: config.gamma,
    temperature: config.rolloutTemperature,
  };
}

/** Adam, as the trainer ranks take it. */
export function optimizerConfig(config: RunConfig): OptimizerConfig {
  return {
    lr: config.lr,
    lrWarmupSteps: config.lrWarmupIters,
    weightDecay: config.weightDecay,
    adamBeta1: config.adamBeta1,
    adamBeta2: config.adamBeta2,
    adamEps: config.adamEps,
    clipGrad: config.clipGrad,
  };
}

/** What each rank is initialised with; `load` is the checkpoint directory to resume from. */
export function trainerInit(config: RunConfig, load: string | null): TrainerInit {
  const needsReference = derive(config).needsReference;
  return {
    hfCheckpoint: config.hfCheckpoint,
    fromScratch: config.fromScratch,
    seed: config.seed,
    load,
    refLoad: needsReference ? (config.refLoad ?? config.hfCheckpoint) : null,
    loss: lossConfig(config),
    optimizer: optimizerConfig(config),
  };
}

/** Sampling of rollouts, as requests to the engines carry it. */
export function rolloutSampling(config: RunConfig): SamplingParams {
  return {
    temperature: config.rolloutTemperature,
    top_p: config.rolloutTopP,
    top_k: config.rolloutTopK,
    max_new_tokens: config.rolloutMaxResponseLen,
    ...(config.rolloutStop.length > 0 ? { stop: config.rolloutStop } : {}),
    ...(config.rolloutStopTokenIds.length > 0 ? { stop_token_ids: config.rolloutStopTokenIds } : {}),
    skip_special_tokens: config.rolloutSkipSpecialTokens,
    spaces_between_special_tokens: false,
    no_stop_trim: true,
  };
}

/** Sampling of evaluations: their own flags, else the rollout's. Temperature 0 is greedy. */
export function evalSampling(config: RunConfig): SamplingParams {
  return {
    ...rolloutSampling(config),
    temperature: config.evalTemperature ?? config.rolloutTemperature,
    top_p: config.evalTopP ?? config.rolloutTopP,
    top_k: config.evalTopK ?? config.rolloutTopK,
    max_new_tokens: config.evalMaxResponseLen ?? config.rolloutMaxResponseLen,
    ...(config.evalMinNewTokens === null ? {} : { min_new_tokens: config.evalMinNewTokens }),
  };
}

/** Seed base of sampling requests, or null for the engines' own chance. */
export function samplingSeed(config: RunConfig): number | null {
  return config.sglangEnableDeterministicInference ? config.rolloutSeed : null;
}

/** Where prompts come from and how they are read. Null keys: by what the records have. */
export interface DataSettings {
  readonly path: string;
  readonly inputKey: string | null;
  readonly labelKey: string | null;
  readonly metadataKey: string;
  readonly applyChatTemplate: boolean;
  readonly chatTemplateKwargs: Readonly<Record<string, unknown>>;
  readonly shuffle: boolean;
  readonly seed: number;
  /** Longer prompts are left out; null: no limit. */
  readonly promptTokensMax: number | null;
  readonly tokenizerDirectory: string;
}

/** The training prompts. */
export function dataSettings(config: RunConfig): DataSettings {
  return {
    path: config.promptData,
    inputKey: config.inputKey,
    labelKey: config.labelKey,
    metadataKey: config.metadataKey,
    applyChatTemplate: config.applyChatTemplate,
    chatTemplateKwargs: config.applyChatTemplateKwargs,
    shuffle: config.rolloutShuffle,
    seed: config.rolloutSeed,
    promptTokensMax: derive(config).promptTokensMax,
    tokenizerDirectory: config.hfCheckpoint,
  };
}

/** One evaluation set as data, in its own order. */
export function evalDataSettings(config: RunConfig, set: NamedPath): DataSettings {
  return {
    ...dataSettings(config),
    path: set.path,
    inputKey: config.evalInputKey ?? config.inputKey,
    labelKey: config.evalLabelKey ?? config.labelKey,
    shuffle: false,
  };
}

export interface RewardSettings {
  readonly rmType: string | null;
  readonly customRmPath: string | null;
  readonly groupRm: boolean;
  readonly rewardKey: string | null;
  readonly evalRewardKey: string | null;
  readonly timeoutMs: number;
}

/** How answers are scored. */
export function rewardSettings(config: RunConfig): RewardSettings {
  return {
    rmType: config.rmType,
    customRmPath: config.customRmPath,
    groupRm: config.groupRm,
    rewardKey: config.rewardKey,
    evalRewardKey: config.evalRewardKey ?? config.rewardKey,
    timeoutMs: config.rmTimeout * 1_000,
  };
}

export interface RouterSettings {
  readonly policy: RouterPolicy;
  /** cache_aware: load decides when the busiest engine has more than `idlest × relative` and `idlest + absolute` requests. */
  readonly balance: { readonly absolute: number; readonly relative: number };
  /** Requests in flight that all rollout workers together may have. */
  readonly inFlightMax: number;
}

/** How the router spreads requests, and how many there may be. */
export function routerSettings(config: RunConfig): RouterSettings {
  return {
    policy: config.routerPolicy,
    balance: { absolute: config.routerBalanceAbsThreshold, relative: config.routerBalanceRelThreshold },
    inFlightMax: config.sglangServerConcurrency * derive(config).engines,
  };
}

/** Sync pushes when nothing is in flight, so aborting costs nothing and lets the cache be flushed. */
export function pauseMode(config: Pick<RunConfig, "mode" | "updateWeightsPauseMode">): PauseMode {
  return config.updateWeightsPauseMode ?? (config.mode === "sync" ? "abort" : "retract");
}

/**
 * Largest mean difference of the canary's log-probs. bfloat16 alone moves them by 0.01 to 0.04 (measured: SGLang against transformers in
 * float32, SmolLM2 against Megatron), so only engines that compute as the trainer does are held to less.
 */
export function canaryTolerance(config: RunConfig): number {
  const alike = config.rolloutBackend === "embedded" || config.sglangArgs["dtype"] === "float32";
  return config.updateWeightCanaryTolerance ?? (alike ? 0.01 : 0.1);
}

/** Past these, the trainer counts as stuck and not as slow. */
export const trainerRestartsMax = 5;

/** What the reducer decides by. */
export function loopConfig(config: RunConfig, length: LoopLength): LoopConfig {
  return {
    mode: config.mode,
    rollouts: length.rollouts,
    rolloutsPerEpoch: length.rolloutsPerEpoch,
    saveInterval: config.saveInterval,
    evalInterval: config.evalInterval,
    evalBeforeTrain: !config.skipEvalBeforeTrain,
    bufferSize: config.asyncBufferSize,
    pushInterval: config.mode === "sync" ? 1 : config.updateWeightsInterval,
    waitForLag: config.stalenessPolicy === "wait" ? config.maxStaleness : null,
    trainerRestartsMax,
  };
}

/** How groups become optimizer steps. */
export function batchOptions(config: RunConfig): BatchOptions {
  const derived = derive(config);
  return {
    estimator: config.advantageEstimator,
    rewardsNormalization: !config.disableRewardsNormalization,
    grpoStdNormalization: !config.disableGrpoStdNormalization && config.nSamplesPerPrompt > 1,
    globalBatchSize: derived.globalBatchSize,
    dataParallelSize: derived.dataParallelSize,
    packing:
      config.useDynamicBatchSize && config.maxTokensPerGpu !== null
        ? { kind: "dynamic", tokensPerGpuMax: config.maxTokensPerGpu, balanceByFlops: false }
        : { kind: "static", microBatchSize: config.microBatchSize },
    balanceData: config.balanceData,
  };
}
