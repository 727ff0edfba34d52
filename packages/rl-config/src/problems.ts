import { derive } from "./derived.js";
import { engineModels } from "./engine-groups.js";
import { engineProblems, routerProblems } from "./engine-problems.js";
import type { RunConfig } from "./flags.js";

/** What a file system tells about a path; the validator itself touches nothing. */
export interface PathProbe {
  readonly kind: (path: string) => "file" | "directory" | "missing";
}

/** `path@[a:b]` without the slice. */
export function withoutSlice(path: string): string {
  return path.replace(/@\[[^\]]*\]$/, "");
}

/** `FILE:NAME` of a hook without the name. */
function withoutName(path: string | null): string | null {
  return path === null ? null : path.replace(/:[A-Za-z_$][\w$]*$/, "");
}

/** Every contradiction of a configuration, each with its fix; empty: none. `given`: flags set by somebody. */
export function problems(config: RunConfig, given: ReadonlySet<string>, paths: PathProbe): readonly string[] {
  return [
    ...batchProblems(config),
    ...modeProblems(config, given),
    ...clusterProblems(config),
    ...engineProblems(config, given),
    ...routerProblems(config, given),
    ...algorithmProblems(config),
    ...evalProblems(config, given),
    ...pathProblems(config, paths),
  ];
}

function batchProblems(config: RunConfig): string[] {
  const out: string[] = [];
  const samples = config.rolloutBatchSize * config.nSamplesPerPrompt;
  const written = `rollout_batch_size × n_samples_per_prompt = ${config.rolloutBatchSize} × ${config.nSamplesPerPrompt} = ${samples}`;
  const { globalBatchSize: gbs, numStepsPerRollout: steps } = config;
  if (config.numRollout === null && config.numEpoch === null) out.push("one of --num-rollout and --num-epoch must be given");
  if (steps !== null && samples % steps !== 0) {
    out.push(`${written} does not divide into --num-steps-per-rollout ${steps}: change one of the three`);
  } else if (gbs !== null && steps !== null && gbs * steps !== samples) {
    out.push(
      `the batch equation does not hold: ${written}, but global_batch_size × num_steps_per_rollout = ${gbs} × ${steps} = ${gbs * steps}; leave --global-batch-size out to derive it (${samples / steps})`,
    );
  } else if (gbs !== null && steps === null && samples % gbs !== 0) {
    const fits = divisorsNear(samples, gbs);
    out.push(
      `the batch equation does not hold: ${written} is not a multiple of --global-batch-size ${gbs}; nearest that fit: ${fits.join(", ")}`,
    );
  }
  const { globalBatchSize, dataParallelSize } = derive(config);
  if (globalBatchSize % dataParallelSize !== 0) {
    out.push(
      `an optimizer step of ${globalBatchSize} samples does not divide over ${dataParallelSize} data-parallel ranks (--actor-num-nodes × --actor-num-gpus-per-node)`,
    );
  } else if (!config.useDynamicBatchSize && (globalBatchSize / dataParallelSize) % config.microBatchSize !== 0) {
    out.push(
      `${globalBatchSize / dataParallelSize} samples per rank and step do not divide into micro-batches of --micro-batch-size ${config.microBatchSize}`,
    );
  }
  if (config.useDynamicBatchSize && config.maxTokensPerGpu === null) out.push("--use-dynamic-batch-size needs --max-tokens-per-gpu");
  if (!config.useDynamicBatchSize && config.maxTokensPerGpu !== null)
    out.push("--max-tokens-per-gpu is read only with --use-dynamic-batch-size");
  if (config.overSamplingBatchSize !== null && config.overSamplingBatchSize < config.rolloutBatchSize) {
    out.push(`--over-sampling-batch-size ${config.overSamplingBatchSize} is smaller than --rollout-batch-size ${config.rolloutBatchSize}`);
  }
  const { rolloutMaxContextLen: context, rolloutMaxPromptLen: prompt } = config;
  if (context !== null && prompt !== null && prompt > context - 1)
    out.push(`--rollout-max-prompt-len ${prompt} leaves no room for an answer in --rollout-max-context-len ${context}`);
  return out;
}

function divisorsNear(samples: number, wanted: number): readonly number[] {
  const divisors = Array.from({ length: samples }, (_, i) => i + 1).filter((n) => samples % n === 0);
  return divisors.sort((a, b) => Math.abs(a - wanted) - Math.abs(b - wanted) || a - b).slice(0, 3);
}

function modeProblems(config: RunConfig, given: ReadonlySet<string>): string[] {
  const out: string[] = [];
  if (config.colocate) {
    out.push(
      config.mode === "async"
        ? "--colocate contradicts train-async: one GPU cannot generate and train at once"
        : "--colocate is not built yet: give trainer and engines GPUs of their own",
    );
  }
  if (config.mode === "sync") {
    for (const flag of ["async-buffer-size", "update-weights-interval", "max-staleness", "staleness-policy"]) {
      if (given.has(flag))
        out.push(
          `--${flag} is read by slime train-async only: slime train generates with the newest weights and pushes after every rollout`,
        );
    }
    if (config.updateWeightsPauseMode !== null && config.updateWeightsPauseMode !== "abort")
      out.push("--update-weights-pause-mode: slime train pushes when nothing is in flight, only abort makes sense");
  }
  if (config.maxStaleness === null && given.has("staleness-policy")) out.push("--staleness-policy is read only with --max-staleness");
  return out;
}

function clusterProblems(config: RunConfig): string[] {
  const out: string[] = [];
  const perEngine = config.rolloutNumGpusPerEngine;
  if (config.sglangModels === null && (config.rolloutNumGpus ?? perEngine) % perEngine !== 0)
    out.push(`--rollout-num-gpus ${config.rolloutNumGpus} is not a multiple of --rollout-num-gpus-per-engine ${perEngine}`);
  if (config.rolloutBackend === "embedded" && perEngine > 1)
    out.push(`--rollout-num-gpus-per-engine ${perEngine}: an embedded engine runs on one virtual GPU; give 1`);
  for (const size of new Set(engineModels(config).flatMap(({ groups }) => groups.map(({ gpusPerEngine }) => gpusPerEngine)))) {
    if (size > config.numGpusPerNode && size % config.numGpusPerNode !== 0)
      out.push(`an engine of ${size} GPUs does not fill whole nodes of --num-gpus-per-node ${config.numGpusPerNode}`);
  }
  return out;
}

function algorithmProblems(config: RunConfig): string[] {
  const out: string[] = [];
  if (config.klCoef !== 0 && config.klLossCoef !== 0)
    out.push("--kl-coef and --kl-loss-coef exclude each other: the KL goes into the reward or into the loss");
  if (config.klLossCoef !== 0 && !config.useKlLoss) out.push("--kl-loss-coef has no effect without --use-kl-loss");
  if (config.useUnbiasedKl && !config.useKlLoss) out.push("--use-unbiased-kl has no effect without --use-kl-loss");
  if (config.refUpdateInterval !== null && !derive(config).needsReference)
    out.push("--ref-update-interval: nothing uses a reference (give --use-kl-loss or --kl-coef)");
  if (config.refLoad !== null && !derive(config).needsReference)
    out.push("--ref-load: nothing uses a reference (give --use-kl-loss or --kl-coef)");
  if (config.refNumGpus > 0 && !derive(config).needsReference)
    out.push("--ref-num-gpus: nothing uses a reference (give --use-kl-loss or --kl-coef)");
  if (config.refNumGpus > 0 && config.refUpdateInterval !== null)
    out.push("--ref-update-interval needs the reference in the trainer's ranks: leave --ref-num-gpus out");
  if (config.advantageEstimator.startsWith("reinforce_plus_plus") && !config.normalizeAdvantages)
    out.push(`--advantage-estimator ${config.advantageEstimator} needs --normalize-advantages`);
  if (config.useRolloutLogprobs && config.useTis)
    out.push(
      "--use-rollout-logprobs and --use-tis exclude each other: with the engine's log-probs as the old policy there is nothing to correct",
    );
  if (config.tisClipLow > config.tisClip) out.push(`--tis-clip-low ${config.tisClipLow} is above --tis-clip ${config.tisClip}`);
  if (config.advantageEstimator === "grpo" && config.nSamplesPerPrompt === 1 && !config.disableRewardsNormalization) {
    out.push(
      "--n-samples-per-prompt 1 with group-relative advantages gives every sample advantage 0: raise it, or --disable-rewards-normalization",
    );
  }
  if (config.rmType === null && config.customRmPath === null)
    out.push("one of --rm-type and --custom-rm-path must say how answers are scored");
  if (config.groupRm && config.customRmPath === null)
    out.push("--group-rm needs --custom-rm-path: built-in rewards score one answer at a time");
  if (config.rmType !== null && config.customRmPath !== null) out.push("--rm-type and --custom-rm-path exclude each other");
  return out;
}

function evalProblems(config: RunConfig, given: ReadonlySet<string>): string[] {
  const out: string[] = [];
  if (config.evalInterval !== null && config.evalPromptData.length === 0) out.push("--eval-interval needs --eval-prompt-data NAME PATH");
  if (config.evalInterval === null) {
    for (const flag of [
      "eval-prompt-data",
      "skip-eval-before-train",
      "n-samples-per-eval-prompt",
      "eval-temperature",
      "eval-top-p",
      "eval-top-k",
      "eval-max-response-len",
      "eval-min-new-tokens",
    ]) {
      if (given.has(flag)) out.push(`--${flag} has no effect without --eval-interval`);
    }
  }
  const names = config.evalPromptData.map(({ name }) => name);
  for (const name of new Set(names.filter((name, at) => names.indexOf(name) !== at))) out.push(`--eval-prompt-data names ${name} twice`);
  for (const name of names.filter((name) => !/^[A-Za-z0-9._-]+$/.test(name)))
    out.push(`--eval-prompt-data: ${JSON.stringify(name)} is no name for metrics (letters, digits, . _ -)`);
  return out;
}

interface WantedPath {
  readonly flag: string;
  readonly path: string;
  readonly kind: "file" | "directory";
}

/** What the flags say is there. */
function wantedPaths(config: RunConfig): readonly WantedPath[] {
  const want = (flag: string, path: string | null, kind: WantedPath["kind"]): readonly WantedPath[] =>
    path === null ? [] : [{ flag: `--${flag}`, path, kind }];
  return [
    ...want("hf-checkpoint", config.hfCheckpoint, "directory"),
    ...want("ref-load", config.refLoad, "directory"),
    ...want("load", config.load, "directory"),
    ...want("sglang-config", config.sglangConfig, "file"),
    ...want("prompt-data", withoutSlice(config.promptData), "file"),
    ...want("custom-rm-path", withoutName(config.customRmPath), "file"),
    ...config.evalPromptData.flatMap(({ name, path }) => want(`eval-prompt-data ${name}`, withoutSlice(path), "file")),
  ];
}

/** Files and directories that the flags name and that are not there. */
export function missingPaths(config: RunConfig, paths: PathProbe): readonly WantedPath[] {
  return wantedPaths(config).filter(({ path }) => paths.kind(path) === "missing");
}

function pathProblems(config: RunConfig, paths: PathProbe): string[] {
  const out = wantedPaths(config).flatMap(({ flag, path, kind }) => {
    const found = paths.kind(path);
    if (found === kind) return [];
    return [
      found === "missing"
        ? `${flag}: ${path} does not exist; name a ${kind} that is there`
        : `${flag}: ${path} is a ${found}, not a ${kind}`,
    ];
  });
  if (config.rolloutMaxContextLen !== null && config.rolloutMaxResponseLen >= config.rolloutMaxContextLen) {
    out.push(
      `--rollout-max-response-len ${config.rolloutMaxResponseLen} leaves no room for a prompt in --rollout-max-context-len ${config.rolloutMaxContextLen}`,
    );
  }
  return out;
}
