import {
  type Prompt,
  type Sample,
  type SampleColumns,
  type SampleSummary,
  type SamplingParams,
  summarise,
  toColumns,
} from "@slime/backend";
import { type Clock, factsOf, type Random, reasonOf, SlimeError } from "@slime/core";
import type { Scored } from "@slime/rewards";
import { type GenerationLimits, type Generator, generate } from "./generation.js";
import { Semaphore } from "./semaphore.js";

/** A prompt whose answers are wanted. */
export interface GroupRequest {
  readonly groupIndex: number;
  readonly instanceId: string;
  readonly prompt: Prompt;
  readonly label: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export interface RunnerRequest {
  readonly rolloutId: number;
  readonly groups: readonly GroupRequest[];
  readonly samplesPerGroup: number;
  readonly sampling: SamplingParams;
  /** Sample i of a group samples with seed `samplingSeed + i`, when not null. */
  readonly samplingSeed: number | null;
  readonly signal: AbortSignal;
}

export type GroupDone =
  | { readonly kind: "finished"; readonly instanceId: string; readonly groupIndex: number; readonly samples: readonly Sample[] }
  | {
      readonly kind: "failed";
      readonly instanceId: string;
      readonly groupIndex: number;
      readonly code: string;
      readonly message: string;
      readonly retryable: boolean;
    };

export interface RunnerParts {
  readonly generator: Generator;
  /** Ids of a prompt, chat template applied. */
  readonly encode: (prompt: Prompt) => readonly number[];
  readonly score: (samples: readonly Sample[]) => Promise<readonly Scored[]>;
  readonly limits: GenerationLimits;
  /** Requests in flight at once. */
  readonly concurrency: number;
  readonly clock: Clock;
  readonly random: Random;
}

/**
 * Takes groups, asks the router, scores the answers.
 * G3: every group asked for gets exactly one outcome; one group's failure touches no other.
 * G4: a group is finished when each of its samples has tokens and a reward; a missing reward fails the group, it never becomes a zero.
 */
export class RolloutRunner {
  readonly #parts: RunnerParts;
  readonly #slots: Semaphore;
  #requests = 0;

  constructor(parts: RunnerParts) {
    this.#parts = parts;
    this.#slots = new Semaphore(parts.concurrency);
  }

  run(request: RunnerRequest): Promise<readonly GroupDone[]> {
    return Promise.all(request.groups.map((group) => this.#group(request, group)));
  }

  async #group(request: RunnerRequest, group: GroupRequest): Promise<GroupDone> {
    const { instanceId, groupIndex } = group;
    // One failed sample ends its siblings: they could not train without it.
    const cut = new AbortController();
    const signal = AbortSignal.any([request.signal, cut.signal]);
    try {
      const promptTokens = this.#parts.encode(group.prompt);
      const made = await Promise.all(
        Array.from({ length: request.samplesPerGroup }, (_, at) =>
          this.#slots
            .run(() => this.#sample(request, group, promptTokens, at, signal))
            .catch((error: unknown) => {
              cut.abort(error);
              throw error;
            }),
        ),
      );
      const scores = await this.#parts.score(made);
      const samples = made.map((sample, at) => withReward(sample, scores[at]));
      return { kind: "finished", instanceId, groupIndex, samples };
    } catch (error) {
      const code = SlimeError.isAny(error) ? error.code : "call.failed";
      return {
        kind: "failed",
        instanceId,
        groupIndex,
        code,
        message: reasonOf(error),
        retryable: code === "call.cancelled" || factsOf(error).retryable,
      };
    }
  }

  async #sample(
    request: RunnerRequest,
    group: GroupRequest,
    promptTokens: readonly number[],
    at: number,
    signal: AbortSignal,
  ): Promise<Sample> {
    const index = group.groupIndex * request.samplesPerGroup + at;
    const sampling = request.samplingSeed === null ? request.sampling : { ...request.sampling, sampling_seed: request.samplingSeed + at };
    const made = await generate(this.#parts.generator, {
      rid: `r${request.rolloutId}.${index}.${this.#requests++}`,
      prompt: promptTokens,
      routingKey: group.instanceId,
      sampling,
      limits: this.#parts.limits,
      clock: this.#parts.clock,
      random: this.#parts.random,
      signal,
    });
    return {
      groupIndex: group.groupIndex,
      index,
      instanceId: group.instanceId,
      rolloutId: index,
      prompt: group.prompt,
      promptTokens,
      responseTokens: made.tokens,
      response: made.text,
      responseLogProbs: made.logProbs,
      lossMask: null,
      weightSpans: made.spans,
      label: group.label,
      reward: null,
      status: made.finish === "length" ? "truncated" : "completed",
      failure: null,
      removeSample: false,
      metadata: group.metadata,
      nonGenerationS: 0,
    };
  }
}

/** Finished groups as one part, and what the driver keeps of each. Row `i` of the part is the i-th sample of all finished groups. */
export function assemble(
  outcomes: readonly GroupDone[],
  rewardKey: string | null,
): { readonly columns: SampleColumns; readonly summaries: ReadonlyMap<string, readonly SampleSummary[]> } {
  const finished = outcomes.filter((outcome) => outcome.kind === "finished");
  const columns = toColumns(
    finished.flatMap((outcome) => outcome.samples),
    rewardKey,
  );
  return {
    columns,
    summaries: new Map(finished.map((outcome) => [outcome.instanceId, outcome.samples.map((sample) => summarise(sample, rewardKey))])),
  };
}

function withReward(sample: Sample, scored: Scored | undefined): Sample {
  if (scored?.kind === "scored") return { ...sample, reward: scored.reward };
  const reason = scored?.reason ?? "nobody scored it";
  throw new SlimeError("reward.failed", `the reward of sample ${sample.index} of prompt ${sample.instanceId} failed: ${reason}`, {
    instanceId: sample.instanceId,
    reason,
  });
}
