import { join } from "node:path";
import { type Clock, type Logger, sleep } from "@slime/core";
import { readTextIfThere } from "@slime/platform";
import { StartActor, StartJob } from "@slime/rpc/control";
import type { Bundles, Reservation } from "./bundles.js";
import { nodeLimits } from "./limits.js";
import type { NodeEvent, NodeState } from "./node-state.js";
import type { Adopted } from "./process-keeper.js";

/** The events by which a machine learns what its earlier lives left. */
export function adoptionEvent({ record, start }: Adopted, logPath: string): NodeEvent {
  const { processId, identity } = record;
  const language = record.command.includes("-m") ? "python" : "node";
  if (record.kind === "driver" && start !== null)
    return { kind: "adopted_job", processId, pid: identity.pid, logPath, start: StartJob.decode(start) };
  if (start !== null) return { kind: "adopted_actor", processId, pid: identity.pid, language, start: StartActor.decode(start) };
  return { kind: "adopted_host", processId, language };
}

/** Committed reservations of earlier lives; a file that cannot be read is none: the head plans them again. */
export async function readBundles(stateDir: string, log: Logger): Promise<Bundles> {
  const path = join(stateDir, "bundles.json");
  try {
    const text = await readTextIfThere(path);
    if (text === null) return new Map();
    const value = JSON.parse(text) as { readonly version: number; readonly bundles: readonly (readonly [string, Reservation])[] };
    return value.version === 1 ? new Map(value.bundles.filter(([, reservation]) => reservation.committed)) : new Map();
  } catch (error) {
    log.warn("node.bundles_unreadable", { path, error });
    return new Map();
  }
}

/** Waits, bounded, until every adopted process has spoken or has turned out to be dead, so that the first hello is true. */
export async function settle(
  adopted: readonly Adopted[],
  state: () => NodeState,
  spoken: (processId: string) => boolean,
  living: (processId: string) => boolean,
  clock: Clock,
): Promise<void> {
  const untilMs = clock.nowMs() + nodeLimits.adoptionMsMax;
  const open = () =>
    adopted.some(
      ({ record: { processId, kind } }) => living(processId) && kind === "host" && state().hosts.has(processId) && !spoken(processId),
    );
  while (open() && clock.nowMs() < untilMs) await sleep(clock, 50);
}
