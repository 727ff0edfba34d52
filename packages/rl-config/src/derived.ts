import { answeringEngines, engineGpus, engineModels } from "./engine-groups.js";
import type { RunConfig } from "./flags.js";

/** What follows from a configuration alone. Units are in the names; `null` where it depends on the data (see `withPrompts`). */
export interface Derived {
  /** Trainer ranks; the embedded backend is data parallel only, so all of them. */
  readonly trainerRanks: number;
  readonly dataParallelSize: number;
  /** Of all engines together, placeholders included; 0 with external engines. */
  readonly rolloutGpus: number;
  /** That answer requests: prefill engines and encoders only help. */
  readonly engines: number;
  readonly samplesPerRollout: number;
  readonly globalBatchSize: number;
  readonly stepsPerRollout: number;
  readonly overSamplingBatchSize: number;
  readonly promptTokensMax: number | null;
  /** The reference's log-probs are needed. */
  readonly needsReference: boolean;
  /** Largest difference between the weight version at training and the oldest version that sampled, over all rollouts. */
  readonly lagMax: number;
  /** Known without the data only when --num-rollout is given. */
  readonly rollouts: number | null;
}

/** @throws nothing: nonsense in, nonsense out; `problems` names it. */
export function derive(config: RunConfig): Derived {
  const trainerRanks = config.actorNumNodes * config.actorNumGpusPerNode;
  const models = engineModels(config);
  const samplesPerRollout = config.rolloutBatchSize * config.nSamplesPerPrompt;
  const globalBatchSize =
    config.globalBatchSize ??
    (config.numStepsPerRollout === null ? samplesPerRollout : Math.floor(samplesPerRollout / config.numStepsPerRollout));
  return {
    trainerRanks,
    dataParallelSize: trainerRanks,
    rolloutGpus: engineGpus(models),
    engines: Math.max(1, config.rolloutExternalEngineAddrs.length, answeringEngines(models)),
    samplesPerRollout,
    globalBatchSize,
    stepsPerRollout: Math.max(1, Math.floor(samplesPerRollout / globalBatchSize)),
    overSamplingBatchSize: config.overSamplingBatchSize ?? config.rolloutBatchSize,
    promptTokensMax: config.rolloutMaxPromptLen ?? (config.rolloutMaxContextLen === null ? null : config.rolloutMaxContextLen - 1),
    needsReference: config.klCoef !== 0 || config.useKlLoss,
    lagMax: config.mode === "sync" ? 0 : largestLag({ bufferSize: config.asyncBufferSize, pushInterval: config.updateWeightsInterval }),
    rollouts: config.numRollout,
  };
}

/**
 * Generation of rollout r starts when at most `bufferSize` rollouts before it are not trained yet (those waiting, less one, and the one
 * in training), so at version floor((r - N) / U) or later; it trains at version floor(r / U). The largest difference is ceil(N / U).
 */
export function largestLag(knobs: { readonly bufferSize: number; readonly pushInterval: number }): number {
  return Math.ceil(knobs.bufferSize / knobs.pushInterval);
}

export interface LoopLength {
  readonly rollouts: number;
  /** Set only when the length comes from epochs: then saves and evaluations also happen at epoch boundaries. */
  readonly rolloutsPerEpoch: number | null;
}

/** The run's length. @returns rollouts 0 when the data holds fewer prompts than one rollout takes. */
export function loopLength(config: RunConfig, prompts: number): LoopLength {
  if (config.numRollout !== null) return { rollouts: config.numRollout, rolloutsPerEpoch: null };
  const rolloutsPerEpoch = Math.floor(prompts / config.rolloutBatchSize);
  return { rollouts: rolloutsPerEpoch * (config.numEpoch ?? 0), rolloutsPerEpoch };
}
