import { type Logger, SlimeError } from "@slime/core";
import type { EngineHandle } from "./ports.js";

/** A fixed text and the trainer's log-probs of it under the weights that were pushed. */
export interface Canary {
  readonly tokens: readonly number[];
  /** Of tokens 1…, at `temperature`. */
  readonly logProbs: Float32Array;
  readonly temperature: number;
  /** Largest mean difference: engine and trainer of one arithmetic agree to 1e-6, other precisions are coarser by far. */
  readonly tolerance: number;
}

/** An engine's own log-probs of the canary against the trainer's: equal weights must give equal numbers. @throws `weights.mismatch`. */
export async function checkCanary({ engine, id }: EngineHandle, version: number, canary: Canary, log: Logger): Promise<void> {
  const { tokens, logProbs, temperature, tolerance } = canary;
  const result = await engine.generate(
    {
      rid: `canary-${id}-${version}`,
      input_ids: tokens,
      sampling_params: { temperature, top_p: 1, top_k: -1, max_new_tokens: 1 },
      return_logprob: true,
      logprob_start_len: 0,
    },
    { timeoutMs: 30_000 },
  );
  const got = result.inputLogProbs.filter((value): value is number => value !== null);
  if (got.length !== logProbs.length) throw mismatch(id, version, `the canary has ${got.length} log-probs, the trainer ${logProbs.length}`);
  const difference = got.reduce((sum, value, i) => sum + Math.abs(value - (logProbs[i] ?? Number.NaN)), 0) / Math.max(1, got.length);
  if (!(difference <= tolerance)) {
    const reason = `the canary's log-probs differ from the trainer's by ${difference} in the mean, --update-weight-canary-tolerance is ${tolerance}`;
    throw mismatch(id, version, reason);
  }
  log.debug("push.canary", { engine: id, version, difference });
}

/** An engine that does not hold what was pushed into it. */
export function mismatch(engine: string, version: number, reason: string): SlimeError {
  return new SlimeError("weights.mismatch", `engine ${engine} does not hold weight version ${version}: ${reason}`, {
    engine,
    version,
    reason,
  });
}
