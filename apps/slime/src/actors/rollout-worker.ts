import { appendFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Sample, SampleSummary, SamplingParams } from "@slime/backend";
import { SlimeError, systemClock, systemRandom } from "@slime/core";
import { loadPromptCodec } from "@slime/data";
import { RewardPool, type RewardSpec, rewardPoolDefaults } from "@slime/rewards";
import { assemble, type GenerationLimits, type GroupDone, type GroupRequest, RolloutRunner } from "@slime/rollout";
import { HttpEngine } from "@slime/router";
import { ctx, defineActors, type ObjectRef, put } from "@slime/runtime";
import type { SampleRecord } from "@slime/training";

export interface RolloutWorkerOptions {
  readonly routerUrl: string;
  readonly hfCheckpoint: string;
  readonly chatTemplateKwargs: Readonly<Record<string, unknown>>;
  readonly reward: RewardSpec;
  readonly rewardKey: string | null;
  readonly evalRewardKey: string | null;
  readonly rewardMsMax: number;
  /** The run's configuration under upstream's names, for the user's functions. */
  readonly hookArgs: Readonly<Record<string, unknown>>;
  readonly limits: GenerationLimits;
  /** Requests in flight at once. */
  readonly concurrency: number;
  /** False: a push cuts every request that runs, so each reply comes from one version of the weights. */
  readonly repliesCrossPushes: boolean;
}

export interface WorkerRequest {
  readonly rolloutId: number;
  readonly groups: readonly GroupRequest[];
  readonly samplesPerGroup: number;
  readonly sampling: SamplingParams;
  readonly samplingSeed: number | null;
  readonly samplesDirectory: string | null;
  /** Names the file in `samplesDirectory`. */
  readonly chunk: string;
}

export type WorkerOutcome =
  | { readonly kind: "finished"; readonly instanceId: string; readonly groupIndex: number; readonly samples: readonly SampleSummary[] }
  | Extract<GroupDone, { kind: "failed" }>;

export interface WorkerResult {
  /** Columns of all finished groups, in order; null when none finished. */
  readonly part: ObjectRef<unknown> | null;
  readonly groups: readonly WorkerOutcome[];
}

/**
 * The client side of generation. Tokens and log-probs end here, as columns in the object store: the driver gets a reference and
 * small numbers. Calls run side by side; what they have in flight together is bounded by `concurrency`.
 */
export class RolloutWorker {
  static readonly methodGroups = { abort: "control", setRouter: "control", setVersionFloor: "control" };
  readonly #options: RolloutWorkerOptions;
  readonly #rewards: RewardPool;
  readonly #runner: Promise<RolloutRunner>;
  #router: HttpEngine;
  #versionFloor: number | null = null;
  #round = new AbortController();

  constructor(options: RolloutWorkerOptions) {
    this.#options = options;
    this.#router = this.#routerAt(options.routerUrl);
    this.#rewards = new RewardPool({
      ...rewardPoolDefaults,
      start: { spec: options.reward, args: options.hookArgs },
      clock: systemClock,
      groupMsMax: options.rewardMsMax,
    });
    this.#runner = this.#load();
    // Whoever asks for a rollout hears of a tokenizer that cannot be read.
    this.#runner.catch(() => undefined);
  }

  async rollout(request: WorkerRequest): Promise<WorkerResult> {
    const outcomes = await this.#run(request);
    const { columns, summaries } = assemble(outcomes, this.#options.rewardKey);
    await this.#keep(request, outcomes, this.#options.rewardKey);
    return { part: columns.rows === 0 ? null : await put(columns), groups: outcomes.map((outcome) => summarised(outcome, summaries)) };
  }

  /** As `rollout`, but nothing will train on it: no columns are kept. */
  async evaluate(request: WorkerRequest): Promise<readonly WorkerOutcome[]> {
    const outcomes = await this.#run(request);
    const { summaries } = assemble(outcomes, this.#options.evalRewardKey);
    await this.#keep(request, outcomes, this.#options.evalRewardKey);
    return outcomes.map((outcome) => summarised(outcome, summaries));
  }

  /** Cuts everything in flight; the calls in progress answer with failed groups. */
  abort(): void {
    this.#round.abort(new SlimeError("call.cancelled", "the rollout was aborted", { what: "rollout" }));
    this.#round = new AbortController();
  }

  /** The router lives elsewhere now. */
  async setRouter(url: string): Promise<void> {
    const before = this.#router;
    this.#router = this.#routerAt(url);
    await before.close();
  }

  /** From now on every engine that may answer has weights of this version at least. */
  setVersionFloor(version: number): void {
    this.#versionFloor = Math.max(version, this.#versionFloor ?? version);
  }

  async onShutdown(): Promise<void> {
    this.abort();
    await this.#rewards[Symbol.asyncDispose]();
    await this.#router.close();
  }

  #routerAt(url: string): HttpEngine {
    return new HttpEngine(url, {
      versions: this.#options.repliesCrossPushes ? { kind: "floor", floor: () => this.#versionFloor } : { kind: "one" },
    });
  }

  async #load(): Promise<RolloutRunner> {
    const { hfCheckpoint, chatTemplateKwargs, limits, concurrency } = this.#options;
    const codec = await loadPromptCodec(hfCheckpoint, { chatTemplateKwargs });
    return new RolloutRunner({
      generator: { generate: (request, how) => this.#router.generate(request, how) },
      encode: codec.encode,
      score: (samples) => this.#rewards.score(samples),
      limits,
      concurrency,
      clock: systemClock,
      random: systemRandom,
    });
  }

  async #run(request: WorkerRequest): Promise<readonly GroupDone[]> {
    ctx().phase(`rollout ${request.rolloutId}`, { waitingFor: "router" });
    const signals = [this.#round.signal, ctx().call?.signal].filter((signal) => signal !== undefined);
    return (await this.#runner).run({ ...request, signal: AbortSignal.any(signals) });
  }

  async #keep(request: WorkerRequest, outcomes: readonly GroupDone[], rewardKey: string | null): Promise<void> {
    if (request.samplesDirectory === null) return;
    const lines = outcomes
      .flatMap((outcome) => (outcome.kind === "finished" ? outcome.samples : []))
      .map((sample) => JSON.stringify(record(sample, request.rolloutId, rewardKey)));
    if (lines.length === 0) return;
    await mkdir(request.samplesDirectory, { recursive: true });
    await appendFile(join(request.samplesDirectory, `${request.chunk}.jsonl`), `${lines.join("\n")}\n`);
  }
}
defineActors(import.meta.url, { RolloutWorker });

function summarised(outcome: GroupDone, summaries: ReadonlyMap<string, readonly SampleSummary[]>): WorkerOutcome {
  if (outcome.kind === "failed") return outcome;
  const { instanceId, groupIndex } = outcome;
  return { kind: "finished", instanceId, groupIndex, samples: summaries.get(instanceId) ?? [] };
}

function record(sample: Sample, rolloutId: number, rewardKey: string | null): SampleRecord {
  const named = typeof sample.reward === "object" ? sample.reward : null;
  return {
    rolloutId,
    index: sample.index,
    groupIndex: sample.groupIndex,
    instanceId: sample.instanceId,
    prompt: sample.prompt,
    response: sample.response,
    label: sample.label,
    reward: typeof sample.reward === "number" ? sample.reward : rewardKey === null ? null : (named?.[rewardKey] ?? null),
    rewards: named,
    status: sample.status,
    responseLength: sample.responseTokens.length,
    weightVersions: [...new Set(sample.weightSpans.map((span) => span.version))],
    failure: sample.failure?.message ?? null,
  };
}
