import { type BackoffPolicy, backoffDelayMs, type Clock, type Random, SlimeError, sleep } from "@slime/core";
import type { HeadClient } from "./head-client.js";
import type { JobView } from "./shapes.js";
import { readEvents } from "./sse.js";

export interface FollowJobOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Gets the driver's output, in order, each byte once. */
  readonly write: (text: string) => void;
  /** Told once for each time the connection is lost and found again. */
  readonly notice: (text: string) => void;
  readonly offset?: number;
}

/** A head that was killed is back within seconds; one that is gone for ten minutes is not waited for. */
const reconnects: BackoffPolicy = { firstMs: 200, factor: 1.5, delayMsMax: 5_000, jitter: 0.2, triesMax: 130 };

/**
 * Writes a job's log until the job is over, through broken connections and deaths of the head. Returns the job as it ended.
 * @throws the signal's reason; SlimeError `not_found`; `head.unavailable` when the head stays away.
 */
export async function followJob(client: HeadClient, id: string, options: FollowJobOptions): Promise<JobView> {
  const { clock, random, signal, write, notice } = options;
  let offset = options.offset ?? 0;
  let attempt = 1;
  for (;;) {
    try {
      const body = await client.openLog(id, offset, signal);
      if (attempt > 1) notice("connected again");
      attempt = 1;
      for await (const event of readEvents(body)) {
        if (event.event === "end") return JSON.parse(event.data) as JobView;
        if (event.event !== "log") continue;
        write((JSON.parse(event.data) as { readonly text: string }).text);
        if (event.id !== null) offset = Number(event.id);
      }
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (SlimeError.isAny(error) && error.code !== "head.unavailable") throw error;
    }
    attempt++;
    if (attempt === 2) notice("the connection to the head broke; the job goes on, trying again …");
    const delayMs = backoffDelayMs(reconnects, attempt, random);
    if (delayMs === null)
      throw new SlimeError(
        "head.unavailable",
        `the head at ${client.url} stays away; the job may go on without it. Follow it later: slime job logs -f ${id}`,
        { address: client.url },
      );
    await sleep(clock, delayMs, signal);
  }
}

/** Exit code of a job that was stopped, and of a Ctrl-C that left one running. */
export const interruptedExitCode = 130;

/** The driver's own exit code; 128 + n for a signal; 1 for a failure that has none. */
export function exitCodeOf(job: JobView): number {
  if (job.state === "SUCCEEDED") return 0;
  if (job.state === "STOPPED") return interruptedExitCode;
  if (job.driver_exit_code !== null && job.driver_exit_code !== 0) return job.driver_exit_code;
  return job.driver_signal === "SIGKILL" ? 137 : job.driver_signal === "SIGTERM" ? 143 : 1;
}
