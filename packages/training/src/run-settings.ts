import type { PauseMode, SamplingParams } from "@slime/backend";
import { derive, type LoopLength, type RunConfig } from "@slime/rl-config";
import type { BatchOptions } from "./batch.js";
import type { GenerationSettings } from "./generation.js";
import type { LoopConfig } from "./loop-state.js";
import { batchOptions, canaryTolerance, loopConfig, pauseMode, rolloutSampling, samplingSeed } from "./settings.js";

export type StalenessPolicy = "drop" | "wait" | "refill" | "mask";

/** What the loop's shell needs to know, apart from where the world is. */
export interface RunSettings {
  readonly runId: string;
  readonly loop: LoopConfig;
  readonly generation: GenerationSettings;
  readonly batch: BatchOptions;
  readonly pauseMode: PauseMode;
  /** The canary is asked at this temperature: servers give log-probs of input tokens at 1, whatever they sample at. */
  readonly temperature: number;
  /** Largest mean difference of the canary's log-probs between engine and trainer. */
  readonly canaryTolerance: number;
  /** Largest lag that trains; null: measured only. */
  readonly staleness: { readonly lagMax: number; readonly policy: StalenessPolicy } | null;
  readonly needOldLogProbs: boolean;
  readonly needRefLogProbs: boolean;
  readonly refUpdateInterval: number | null;
  readonly rolloutGpus: number;
  readonly checkpointsKept: number;
  readonly stallMs: number;
  readonly evalSamplingSeed: number | null;
}

/** A run's settings out of its flags. `samplesRoot`: where workers keep samples. */
export function runSettings(
  config: RunConfig,
  run: { readonly runId: string; readonly length: LoopLength; readonly samplesRoot: string | null },
): RunSettings {
  const derived = derive(config);
  const sampling: SamplingParams = rolloutSampling(config);
  return {
    runId: run.runId,
    loop: loopConfig(config, run.length),
    generation: {
      groups: config.rolloutBatchSize,
      samplesPerGroup: config.nSamplesPerPrompt,
      firstWave: derived.overSamplingBatchSize,
      sampling,
      samplingSeed: samplingSeed(config),
      dropZeroStd: config.dynamicSamplingFilterPath !== null,
      failedShareMax: config.failedPromptsMax,
      samplesRoot: config.noSaveSamples ? null : run.samplesRoot,
    },
    batch: batchOptions(config),
    pauseMode: pauseMode(config),
    temperature: 1,
    canaryTolerance: canaryTolerance(config),
    staleness: config.maxStaleness === null ? null : { lagMax: config.maxStaleness, policy: config.stalenessPolicy },
    // With one step per rollout the step's own log-probs, detached, are the old policy's.
    needOldLogProbs: derived.stepsPerRollout > 1 && !config.useRolloutLogprobs,
    needRefLogProbs: derived.needsReference,
    refUpdateInterval: config.refUpdateInterval,
    rolloutGpus: derived.rolloutGpus,
    checkpointsKept: config.saveKeep,
    stallMs: config.stallTimeout * 1_000,
    evalSamplingSeed: samplingSeed(config),
  };
}
