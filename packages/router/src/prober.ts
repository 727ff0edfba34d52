import type { Clock, Timer } from "@slime/core";
import type { Dispatcher } from "./dispatcher.js";

/** Probes every engine each `everyMs`, until closed. A slow engine's probe does not hold up the others. */
export function startProber(
  dispatcher: Pick<Dispatcher, "fleet" | "probe">,
  clock: Clock,
  everyMs: number,
): { readonly close: () => void } {
  let timer: Timer | null = null;
  const round = () => {
    for (const { id } of dispatcher.fleet.workers) void dispatcher.probe(id);
    timer = clock.after(everyMs, round);
  };
  timer = clock.after(everyMs, round);
  return { close: () => timer?.cancel() };
}
