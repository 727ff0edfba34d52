import { type Clock, SlimeError, type Timer } from "@slime/core";
import type { WorkerStart } from "./protocol.js";
import { startWorker } from "./workers.js";

export interface RewardCheck {
  readonly start: WorkerStart;
  readonly clock: Clock;
  /** Time the user's code may take to load; then it counts as hung and is ended. */
  readonly startMsMax: number;
}

/**
 * Loads the reward function as a rollout worker will, in a worker of its own that is ended again, so that a missing package, a syntax error or
 * a wrong export is found before a run takes anything. It is not called: what it says of an answer shows with the first answer.
 * @throws `hook.failed` with what loading said, or that it never ended.
 */
export async function checkReward({ start, clock, startMsMax }: RewardCheck): Promise<void> {
  const { spec } = start;
  if (spec.kind === "rule") return;
  const reason = await new Promise<string | null>((resolve) => {
    const timers: Timer[] = [];
    const end = (said: string | null) => {
      for (const timer of timers) timer.cancel();
      worker.kill();
      resolve(said);
    };
    const worker = startWorker(start, {
      onMessage: (message) => end(message.kind === "broken" ? message.reason : null),
      onDeath: end,
    });
    timers.push(clock.after(startMsMax, () => end(`it did not load within ${startMsMax / 1_000} s`)));
  });
  if (reason === null) return;
  const path = `${spec.file}${spec.name === null ? "" : `:${spec.name}`}`;
  throw new SlimeError("hook.failed", `--custom-rm-path ${path} does not load: ${reason}`, { hook: "--custom-rm-path", path: spec.file });
}
