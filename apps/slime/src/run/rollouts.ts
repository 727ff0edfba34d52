import { type Clock, causeChain, factsOf, type Logger, reasonOf, SlimeError } from "@slime/core";
import { type ActorHandle, free, type ObjectRef } from "@slime/runtime";
import type { EvalRequest, EvalResult, GroupOutcome, PromptGroup, RolloutRequest, RolloutResult, Rollouts } from "@slime/training";
import type { RolloutWorker, WorkerOutcome, WorkerRequest, WorkerResult } from "../actors/rollout-worker.js";

/** Upper bound of one worker call. Progress is watched by the loop's stall watchdog, long before this. */
const callMsMax = 4 * 3_600_000;
/** A chunk whose worker died is given to another this often. */
const triesMax = 3;
/** Chunks per worker and rollout: enough for progress to be seen and a dead worker to cost little. */
const chunksPerWorker = 4;

type Worker = ActorHandle<RolloutWorker>;

/** The run's rollout workers as one port: groups are spread over live workers in chunks; a dead worker's chunks go to another. */
export function rolloutsOver(workers: readonly Worker[], parts: { readonly clock: Clock; readonly log: Logger }): Rollouts {
  let turn = 0;
  const next = (): Worker => {
    const alive = workers.filter((worker) => worker.state().state === "ALIVE");
    const from = alive.length > 0 ? alive : workers;
    const worker = from[turn++ % from.length];
    if (worker === undefined)
      throw new SlimeError("config.invalid", "a run has at least one rollout worker", { issues: ["--rollout-num-workers"] });
    return worker;
  };

  /** Runs one chunk somewhere; resolves with what failed when nobody could. */
  const onSomeWorker = async <T>(
    chunk: readonly PromptGroup[],
    signal: AbortSignal,
    run: (worker: Worker) => Promise<T>,
  ): Promise<T | readonly WorkerOutcome[]> => {
    for (let attempt = 1; ; attempt++) {
      const worker = next();
      try {
        return await run(worker);
      } catch (error) {
        parts.log.warn("rollout.chunk_failed", { worker: worker.actorId, attempt, error: causeChain(error).join(": ") });
        const { retryable } = factsOf(error);
        if (attempt >= triesMax || signal.aborted || !retryable) return chunk.map((group) => failed(group, error));
      }
    }
  };

  return {
    async rollout(request) {
      let groupsDone = 0;
      let responseTokens = 0;
      const chunks = chunked(request.groups, workers.length * chunksPerWorker);
      const results = await Promise.all(
        chunks.map(async (chunk, at) => {
          const result = await onSomeWorker(chunk, request.signal, (worker) =>
            worker.rollout.options({ timeoutMs: callMsMax, signal: request.signal })(
              workerRequest(request, chunk, `${request.opId}-${at}`),
            ),
          );
          const done: WorkerResult = "groups" in result ? result : { part: null, groups: result };
          groupsDone += chunk.length;
          responseTokens += tokensOf(done.groups);
          request.onProgress?.({ groupsDone, groups: request.groups.length, responseTokens });
          return done;
        }),
      );
      return assembled(results);
    },
    async evaluate(request) {
      const chunks = chunked(request.prompts, workers.length * chunksPerWorker);
      const results = await Promise.all(
        chunks.map((chunk, at) =>
          onSomeWorker(chunk, request.signal, (worker) =>
            worker.evaluate.options({ timeoutMs: callMsMax, signal: request.signal })(evalRequest(request, chunk, `${request.opId}-${at}`)),
          ),
        ),
      );
      const outcomes = results.flat();
      const bad = outcomes.find((outcome) => outcome.kind === "failed");
      if (bad !== undefined && bad.kind === "failed") {
        const name = `evaluation ${request.dataset}, prompt ${bad.instanceId}`;
        if (bad.code === "reward.failed")
          throw new SlimeError("reward.failed", `${name}: ${bad.message}`, { instanceId: bad.instanceId, reason: bad.message });
        throw new SlimeError("call.failed", `${name}: ${bad.message}`, { name: bad.code, where: name });
      }
      return { samples: outcomes.flatMap((outcome) => (outcome.kind === "finished" ? outcome.samples : [])) } satisfies EvalResult;
    },
    async abort() {
      await Promise.allSettled(workers.map((worker) => worker.abort.options({ timeoutMs: 10_000 })()));
    },
    free: async (refs) => free(refs as readonly ObjectRef<unknown>[]),
  };
}

/** At most `count` chunks of nearly equal size, in order. */
function chunked<T>(items: readonly T[], count: number): readonly (readonly T[])[] {
  const size = Math.max(1, Math.ceil(items.length / count));
  return Array.from({ length: Math.ceil(items.length / size) }, (_, at) => items.slice(at * size, (at + 1) * size));
}

function workerRequest(request: RolloutRequest, groups: readonly PromptGroup[], chunk: string): WorkerRequest {
  const { rolloutId, samplesPerGroup, sampling, samplingSeed, samplesDirectory } = request;
  return { rolloutId, groups, samplesPerGroup, sampling, samplingSeed, samplesDirectory, chunk: fileName(chunk) };
}

function evalRequest(request: EvalRequest, groups: readonly PromptGroup[], chunk: string): WorkerRequest {
  const { samplesPerPrompt, sampling, samplingSeed, samplesDirectory } = request;
  return { rolloutId: -1, groups, samplesPerGroup: samplesPerPrompt, sampling, samplingSeed, samplesDirectory, chunk: fileName(chunk) };
}

const fileName = (text: string) => text.replace(/[^\w.-]+/g, "_");

const tokensOf = (groups: readonly WorkerOutcome[]): number =>
  groups.reduce(
    (sum, group) => sum + (group.kind === "finished" ? group.samples.reduce((tokens, sample) => tokens + sample.responseLength, 0) : 0),
    0,
  );

/** Rows of a part are the samples of its finished groups, in order. */
function assembled(results: readonly WorkerResult[]): RolloutResult {
  const parts: ObjectRef<unknown>[] = [];
  const groups: GroupOutcome[] = [];
  for (const result of results) {
    const part = parts.length;
    let row = 0;
    if (result.part !== null) parts.push(result.part);
    for (const group of result.groups)
      groups.push(group.kind === "failed" ? group : { ...group, rows: group.samples.map(() => ({ part, row: row++ })) });
  }
  return { parts, groups, metrics: {} };
}

function failed(group: PromptGroup, error: unknown): Extract<WorkerOutcome, { kind: "failed" }> {
  const code = SlimeError.isAny(error) ? error.code : "call.failed";
  return {
    kind: "failed",
    instanceId: group.instanceId,
    groupIndex: group.groupIndex,
    code,
    message: reasonOf(error),
    retryable: factsOf(error).retryable,
  };
}
