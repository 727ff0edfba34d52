/**
 * One rollout: asks for groups in waves until enough are kept. A wave's failures are told apart: the world's are tried again, a
 * prompt's own drop it with a reason, and too many of those stop the run.
 */
import type { SampleSummary, SamplingParams } from "@slime/backend";
import { type BackoffPolicy, backoffDelayMs, type Clock, type Logger, type Random, SlimeError, sleep } from "@slime/core";
import type { TrainGroup } from "./batch.js";
import type { GroupOutcome, PartRef, PromptGroup, Rollouts } from "./ports.js";
import type { PromptDesk } from "./prompt-desk.js";

export interface GenerationSettings {
  readonly groups: number;
  readonly samplesPerGroup: number;
  /** Prompts of the first wave; more than `groups` only pays with a filter. */
  readonly firstWave: number;
  readonly sampling: SamplingParams;
  readonly samplingSeed: number | null;
  /** Drop groups whose rewards are all equal. */
  readonly dropZeroStd: boolean;
  /** Share of failed prompts past which the run stops. */
  readonly failedShareMax: number;
  readonly samplesRoot: string | null;
}

/** So many failures are allowed whatever their share, or the first bad prompt of a run would end it. */
export const failedPromptsAllowed = 8;
/** Tries after which a prompt that fails while others finish is dropped. */
export const triesPerPromptMax = 5;
/** A rollout draws at most so many times its groups before its filter counts as one that keeps nothing. */
export const drawsPerGroupMax = 32;
/** Waits between tries of groups that the world failed. */
export const retryPolicy: BackoffPolicy = { firstMs: 250, factor: 1.6, delayMsMax: 15_000, jitter: 0.2, triesMax: 14 };

export interface GenerationParts {
  readonly desk: PromptDesk;
  readonly rollouts: Rollouts;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** A rollout that waits for the trainer. */
export interface FinishedRollout {
  readonly rolloutId: number;
  readonly parts: readonly PartRef[];
  /** In order of `groupIndex`. */
  readonly groups: readonly TrainGroup[];
  readonly startMs: number;
  readonly endMs: number;
  /** Groups dropped, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
  /** Samples generated, kept or not. */
  readonly generatedTokens: number;
  readonly workerMetrics: Readonly<Record<string, number>>;
}

export interface GenerationRequest {
  readonly rolloutId: number;
  readonly opId: string;
  readonly groups: number;
  readonly signal: AbortSignal;
  readonly onProgress: (groupsDone: number, groups: number) => void;
}

/** @throws `reward.failed` past the bound on failures, what the world said when no try got through, or the signal's reason. */
export async function generateRollout(
  parts: GenerationParts,
  settings: GenerationSettings,
  request: GenerationRequest,
): Promise<FinishedRollout> {
  const { rolloutId, signal } = request;
  const wave = new Wave(settings, request);
  const startMs = parts.clock.nowMs();
  let tries = 1;
  while (wave.missing > 0) {
    signal.throwIfAborted();
    const retried = wave.takeRetries();
    if (retried.length > 0) {
      await pause(parts, tries, wave, signal);
      await parts.desk.again(retried, rolloutId);
    }
    const want = Math.max(0, (wave.waves === 0 ? Math.max(settings.firstWave, request.groups) : wave.missing) - retried.length);
    const fresh = await parts.desk.take(want, rolloutId);
    const asked = [...retried, ...fresh];
    signal.throwIfAborted();
    const result = await parts.rollouts.rollout({
      rolloutId,
      opId: `${request.opId}/w${wave.waves}`,
      groups: asked,
      samplesPerGroup: settings.samplesPerGroup,
      sampling: settings.sampling,
      samplingSeed: settings.samplingSeed,
      samplesDirectory: settings.samplesRoot === null ? null : `${settings.samplesRoot}/rollout-${String(rolloutId).padStart(7, "0")}`,
      onProgress: ({ groupsDone }) => request.onProgress(wave.kept.length + groupsDone, request.groups),
      signal,
    });
    signal.throwIfAborted();
    const before = wave.kept.length;
    await wave.take(parts, asked, result.groups, result.parts, result.metrics);
    tries = wave.kept.length > before ? 1 : tries + 1;
    checkBounds(parts, settings, wave, request);
  }
  const groups = [...wave.kept].sort((a, b) => a.groupIndex - b.groupIndex).slice(0, request.groups);
  const surplus = wave.kept.filter((group) => !groups.includes(group)).map((group) => group.instanceId);
  await parts.desk.finish(
    groups.map((group) => group.instanceId),
    rolloutId,
  );
  if (surplus.length > 0) {
    wave.dropped["surplus"] = surplus.length;
    await parts.desk.drop(surplus, rolloutId, "surplus", false);
  }
  return {
    rolloutId,
    parts: wave.parts,
    groups,
    startMs,
    endMs: parts.clock.nowMs(),
    dropped: wave.dropped,
    generatedTokens: wave.tokens,
    workerMetrics: wave.metrics,
  };
}

/** What the waves of one rollout have brought so far. */
class Wave {
  readonly parts: PartRef[] = [];
  readonly kept: TrainGroup[] = [];
  readonly dropped: Record<string, number> = {};
  readonly metrics: Record<string, number> = {};
  waves = 0;
  drawn = 0;
  tokens = 0;
  lastFailure: { readonly code: string; readonly message: string } | null = null;
  #retry: PromptGroup[] = [];
  readonly #tries = new Map<string, number>();
  readonly #settings: GenerationSettings;
  readonly #wanted: number;
  readonly #rolloutId: number;

  constructor(settings: GenerationSettings, request: GenerationRequest) {
    this.#settings = settings;
    this.#wanted = request.groups;
    this.#rolloutId = request.rolloutId;
  }

  get missing(): number {
    return Math.max(0, this.#wanted - this.kept.length);
  }

  takeRetries(): readonly PromptGroup[] {
    return this.#retry.splice(0);
  }

  async take(
    { desk, log }: GenerationParts,
    asked: readonly PromptGroup[],
    outcomes: readonly GroupOutcome[],
    parts: readonly PartRef[],
    metrics: Readonly<Record<string, number>>,
  ): Promise<void> {
    const offset = this.parts.length;
    this.parts.push(...parts);
    Object.assign(this.metrics, metrics);
    this.waves++;
    this.drawn += asked.length;
    const byId = new Map(outcomes.map((outcome) => [outcome.instanceId, outcome]));
    const anyFinished = outcomes.some((outcome) => outcome.kind === "finished");
    for (const failure of alike(outcomes)) log.warn("rollout.groups.failed", { rolloutId: this.#rolloutId, ...failure });
    for (const group of asked) {
      const outcome = byId.get(group.instanceId) ?? silent(group);
      if (outcome.kind === "failed") {
        this.lastFailure = outcome;
        // While others get through, it is this prompt that nothing survives.
        const tries = (this.#tries.get(group.instanceId) ?? 0) + 1;
        this.#tries.set(group.instanceId, tries);
        if (outcome.retryable && !(tries >= triesPerPromptMax && anyFinished)) this.#retry.push(group);
        else await this.#drop(desk, group, outcome.code, true);
        continue;
      }
      this.tokens += outcome.samples.reduce((sum, sample) => sum + sample.responseLength, 0);
      const broken = outcome.samples.find((sample) => sample.failure !== null || sample.reward === null || !Number.isFinite(sample.reward));
      if (broken !== undefined) {
        const code = broken.failure?.code ?? "reward.failed";
        this.lastFailure = { code, message: broken.failure?.message ?? `sample ${broken.index} has the reward ${String(broken.reward)}` };
        await this.#drop(desk, group, code, true);
        continue;
      }
      const reason = this.#settings.dropZeroStd ? zeroStd(outcome.samples) : null;
      if (reason === null) {
        const rows = outcome.rows.map(({ part, row }) => ({ part: part + offset, row }));
        this.kept.push({ instanceId: group.instanceId, groupIndex: group.groupIndex, samples: outcome.samples, rows, masked: false });
      } else await this.#drop(desk, group, reason, false);
    }
  }

  async #drop(desk: PromptDesk, group: PromptGroup, reason: string, isFailure: boolean): Promise<void> {
    this.dropped[reason] = (this.dropped[reason] ?? 0) + 1;
    await desk.drop([group.instanceId], this.#rolloutId, reason, isFailure);
  }
}

/** Upstream's reason for a group of equal rewards: it carries no signal. */
export function zeroStd(samples: readonly SampleSummary[]): string | null {
  const rewards = samples.map((sample) => sample.reward ?? Number.NaN);
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
  const variance = rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0) / Math.max(1, rewards.length - 1);
  return Math.sqrt(variance) > 1e-6 ? null : `zero_std_${(rewards[0] ?? 0).toFixed(1)}`;
}

interface AlikeFailures {
  readonly groups: number;
  /** The first three. */
  readonly prompts: readonly string[];
  readonly code: string;
  /** As the first of them says it. */
  readonly reason: string;
  readonly retryable: boolean;
}

/** Failures of one wave, those that differ in numbers only (samples, prompts, times) as one: sixty-four equal ones are one line of a log. */
export function alike(outcomes: readonly GroupOutcome[]): readonly AlikeFailures[] {
  const kinds = new Map<string, AlikeFailures>();
  for (const outcome of outcomes) {
    if (outcome.kind !== "failed") continue;
    const { code, message: reason, retryable, instanceId } = outcome;
    const key = `${code} ${reason.replaceAll(/\d+/g, "#")}`;
    const known = kinds.get(key) ?? { groups: 0, prompts: [], code, reason, retryable };
    kinds.set(key, { ...known, groups: known.groups + 1, prompts: [...known.prompts, instanceId].slice(0, 3) });
  }
  return [...kinds.values()];
}

/** A worker that forgot a group did not finish it. */
function silent(group: PromptGroup): GroupOutcome {
  return {
    kind: "failed",
    instanceId: group.instanceId,
    groupIndex: group.groupIndex,
    code: "actor.unavailable",
    message: "no worker answered for it",
    retryable: true,
  };
}

async function pause({ clock, random }: GenerationParts, tries: number, wave: Wave, signal: AbortSignal): Promise<void> {
  const delayMs = backoffDelayMs(retryPolicy, Math.max(2, tries), random);
  if (delayMs === null) {
    const last = wave.lastFailure;
    throw new SlimeError(
      "engine.unavailable",
      `no prompt got through in ${retryPolicy.triesMax} tries, the last time: ${last?.message ?? "no answer"}; the same command resumes the run`,
      { engine: "all", reason: last?.message ?? "no answer" },
    );
  }
  await sleep(clock, delayMs, signal);
}

function checkBounds({ desk }: GenerationParts, settings: GenerationSettings, wave: Wave, request: GenerationRequest): void {
  const allowed = Math.max(failedPromptsAllowed, Math.floor(settings.failedShareMax * desk.issued));
  if (desk.failed > allowed) {
    const reason = wave.lastFailure?.message ?? "unknown";
    throw new SlimeError(
      "reward.failed",
      `${desk.failed} of ${desk.issued} prompts failed, more than --failed-prompts-max allows (${allowed}); the last: ${reason}`,
      { instanceId: "many", reason },
    );
  }
  if (wave.drawn > drawsPerGroupMax * request.groups) {
    const dropped = Object.entries(wave.dropped).map(([reason, count]) => `${reason}: ${count}`);
    throw new SlimeError(
      "config.invalid",
      `rollout ${request.rolloutId} drew ${wave.drawn} prompts and kept ${wave.kept.length} of ${request.groups} (${dropped.join(", ")}): the rewards give no signal, or --dynamic-sampling-filter-path keeps too little`,
      { issues: dropped },
    );
  }
}
