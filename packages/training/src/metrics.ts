/** Upstream's metric names out of what the driver knows: summaries, timers, what the trainer answered. */
import { passRates, summarise } from "@slime/algorithms";
import type { SampleSummary, TrainStepResult } from "@slime/backend";
import type { FinishedRollout } from "./generation.js";
import type { TrainRolloutResult } from "./ports.js";
import type { MetricRecord } from "./run-records.js";

type Values = Record<string, number>;

const mean = (values: readonly number[]): number =>
  values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;

function spread(out: Values, name: string, values: readonly number[]): void {
  const summary = summarise(values);
  if (summary === null) return;
  for (const [key, value] of Object.entries(summary)) out[`${name}/${key}`] = value;
}

/** Versions between a sample's oldest trained token and the weights that train on it; 0 for a sample without tokens. */
export function lagOf(sample: SampleSummary, version: number): number {
  return sample.weightVersionMin === null ? 0 : Math.max(0, version - sample.weightVersionMin);
}

export interface RolloutFacts {
  readonly rollout: FinishedRollout;
  readonly samples: readonly SampleSummary[];
  /** Weight version when it trains. */
  readonly version: number;
  readonly result: TrainRolloutResult | null;
  readonly rolloutGpus: number;
  /** Milliseconds the trainer's lane waited for this rollout, and worked on it. */
  readonly waitMs: number;
  readonly trainMs: number;
  readonly failedPrompts: number;
}

/** One record on the axis `rollout/step`. */
export function rolloutRecord(facts: RolloutFacts): MetricRecord {
  const { rollout, samples, version, result } = facts;
  const values: Values = {};
  spread(
    values,
    "rollout/response_len",
    samples.map((sample) => sample.effectiveLength),
  );
  values["rollout/response_lengths"] = mean(samples.map((sample) => sample.responseLength));
  values["rollout/total_lengths"] = mean(samples.map((sample) => sample.promptLength + sample.responseLength));
  values["rollout/raw_reward"] = mean(samples.map((sample) => sample.reward ?? 0));
  values["rollout/truncated_ratio"] = mean(samples.map((sample) => (sample.status === "truncated" ? 1 : 0)));
  values["rollout/failed_prompts"] = facts.failedPrompts;
  for (const [reason, count] of Object.entries(rollout.dropped)) values[`rollout/dynamic_filter/drop_${reason}`] = count;
  for (const [reward, count] of zeroStdGroups(rollout)) values[`rollout/zero_std/count_${reward}`] = count;
  spread(
    values,
    "rollout/staleness",
    samples.map((sample) => lagOf(sample, version)),
  );
  values["rollout/weight_version"] = version;
  values["rollout/mixed_version_ratio"] = mean(
    samples.map((sample) => (sample.weightVersionMin === sample.weightVersionMax && !sample.mixed ? 0 : 1)),
  );
  for (const [name, value] of Object.entries(result?.rolloutMetrics ?? {})) values[`rollout/${name}`] = value;

  const rolloutS = (rollout.endMs - rollout.startMs) / 1_000;
  const waitS = facts.waitMs / 1_000;
  const trainS = facts.trainMs / 1_000;
  values["perf/rollout_time"] = rolloutS;
  values["perf/train_wait_time"] = waitS;
  values["perf/train_time"] = trainS;
  values["perf/step_time"] = waitS + trainS;
  values["perf/wait_time_ratio"] = waitS + trainS === 0 ? 0 : waitS / (waitS + trainS);
  if (rolloutS > 0) {
    values["perf/tokens_per_gpu_per_sec"] = rollout.generatedTokens / rolloutS / facts.rolloutGpus;
    values["perf/effective_tokens_per_gpu_per_sec"] =
      samples.reduce((sum, sample) => sum + sample.effectiveLength, 0) / rolloutS / facts.rolloutGpus;
  }
  for (const [name, seconds] of Object.entries(result?.timers ?? {})) values[`perf/${name}_time`] = seconds;
  const trainedTokens = result?.steps.reduce((sum, step) => sum + step.tokens, 0) ?? 0;
  if (trainS > 0) values["perf/actor_train_tok_per_s"] = trainedTokens / trainS;
  for (const [name, value] of Object.entries(rollout.workerMetrics)) values[name.includes("/") ? name : `rollout/${name}`] = value;
  return { axis: "rollout/step", step: rollout.rolloutId, values };
}

function zeroStdGroups(rollout: FinishedRollout): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const { samples } of rollout.groups) {
    const first = samples[0]?.reward;
    if (samples.length < 2 || first === null || first === undefined || samples.some((sample) => sample.reward !== first)) continue;
    const key = String(Math.round(first * 10) / 10);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

/** One record per optimizer step on the axis `train/step`, which counts from 0. */
export function trainRecords(steps: readonly TrainStepResult[]): readonly MetricRecord[] {
  return steps.map(({ step, metrics }) => ({
    axis: "train/step",
    step: step - 1,
    values: Object.fromEntries(Object.entries(metrics).map(([name, value]) => [`train/${name}`, value])),
  }));
}

/** One record on the axis `eval/step`. `eval/NAME` is the mean reward. */
export function evalRecord(
  rolloutId: number,
  sets: readonly { readonly name: string; readonly samples: readonly SampleSummary[]; readonly samplesPerPrompt: number }[],
): MetricRecord {
  const values: Values = {};
  for (const { name, samples, samplesPerPrompt } of sets) {
    const rewards = samples.map((sample) => sample.reward ?? 0);
    values[`eval/${name}`] = mean(rewards);
    values[`eval/${name}-truncated_ratio`] = mean(samples.map((sample) => (sample.status === "truncated" ? 1 : 0)));
    spread(
      values,
      `eval/${name}/response_len`,
      samples.map((sample) => sample.effectiveLength),
    );
    if (samplesPerPrompt > 1)
      for (const [k, rate] of Object.entries(passRates(rewards, samplesPerPrompt))) values[`eval/${name}-pass@${k}`] = rate;
  }
  return { axis: "eval/step", step: rolloutId, values };
}
