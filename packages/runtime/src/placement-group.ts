import { PlacementGroupId, SlimeError } from "@slime/core";
import type { WaitOptions } from "./handle-types.js";
import { runtimeLimits } from "./limits.js";
import type { PlacementGroupView, PlacementRow, PlacementStrategy } from "./ports.js";
import { type Resources, resourceUnits } from "./resources.js";
import type { Runtime } from "./runtime.js";
import { waitUntil } from "./wait-until.js";

export interface PlacementGroupOptions {
  readonly bundles: readonly Resources[];
  /** Default PACK: as few nodes as possible. */
  readonly strategy?: PlacementStrategy;
  readonly name?: string;
}

export interface PlacementWaitOptions extends WaitOptions {
  /** Hears for what the group waits, at once and at every change. */
  readonly onWaiting?: (reasons: readonly string[]) => void;
}

/** Bundles reserved together, all or none. */
export interface PlacementGroup {
  readonly id: string;
  readonly size: number;
  readonly state: () => PlacementGroupView;
  /**
   * The placed bundles in rank order. A group that can never fit fails at once with the numbers; one that could fit later waits.
   * @throws placement.infeasible, placement.removed, placement.waiting (the deadline passed; with the reasons).
   */
  readonly ready: (options?: PlacementWaitOptions) => Promise<readonly PlacementRow[]>;
  /** Ends every actor in it and frees its bundles. */
  readonly remove: (options?: WaitOptions) => Promise<void>;
}

/** Asks for a group; it is there at once, `ready()` waits for its place. @throws config.invalid for bundles that make no sense. */
export function createPlacementGroup(runtime: Runtime, options: PlacementGroupOptions): PlacementGroup {
  const { clock, log, random } = runtime.parts;
  const id = PlacementGroupId.create(random);
  if (options.bundles.length === 0)
    throw new SlimeError("config.invalid", "a placement group needs at least one bundle", { issues: ["bundles: at least one"] });
  const bundles = options.bundles.map(resourceUnits);
  let view: PlacementGroupView = { placementGroupId: id, state: "PENDING", generation: 0, rows: [], waiting: [], failure: null };
  const listeners = new Set<(view: PlacementGroupView) => void>();
  const heard = (said: PlacementGroupView) => {
    if (said.generation < view.generation || view.state === "REMOVED" || view.state === "INFEASIBLE") return;
    view = said;
    for (const listener of [...listeners]) listener(view);
  };
  const created = (async () => {
    try {
      const head = await runtime.control();
      const strategy = options.strategy ?? "PACK";
      heard(
        await head.createPlacementGroup(
          { placementGroupId: id, strategy, name: options.name ?? "", bundles },
          { timeoutMs: runtimeLimits.controlTimeoutMs },
        ),
      );
      head.followPlacementGroup(id, heard);
    } catch (error) {
      heard({ ...view, state: "INFEASIBLE", failure: error });
    }
  })();
  const wanted = `${options.name === undefined ? id : `${options.name} (${id})`}, ${bundles.length} bundles, ${options.strategy ?? "PACK"}`;
  return {
    id,
    size: bundles.length,
    state: () => view,
    async ready({ onWaiting, ...wait } = {}) {
      const tell = () => {
        if (view.state !== "CREATED" && view.waiting.length > 0) onWaiting?.(view.waiting);
      };
      tell();
      const startedAt = clock.nowMs();
      return waitUntil(
        { clock, log },
        {
          what: () =>
            `placement group ${wanted}: ${view.state}${view.waiting.length === 0 ? "" : `, waits for ${view.waiting.join("; ")}`}`,
          check: () => placed(view, wanted),
          // Whoever is told of the reasons themselves needs no early report.
          reportFirstMs: onWaiting === undefined ? runtimeLimits.waitReportFirstMs : runtimeLimits.waitReportMs,
          listen(changed) {
            const listener = () => {
              tell();
              changed();
            };
            listeners.add(listener);
            return () => listeners.delete(listener);
          },
          late: () => {
            const waitedMs = Math.round(clock.nowMs() - startedAt);
            return new SlimeError(
              "placement.waiting",
              `${wanted} is not placed after ${waitedMs} ms: ${view.waiting.join("; ") || "the head has not answered"}`,
              { wanted, reasons: view.waiting, waitedMs },
            );
          },
          ...wait,
        },
      );
    },
    async remove(wait = {}) {
      await created;
      if (view.state === "INFEASIBLE") return;
      await (await runtime.control()).removePlacementGroup(id, { timeoutMs: runtimeLimits.controlTimeoutMs, ...wait });
      heard({ ...view, state: "REMOVED", rows: [] });
    },
  };
}

function placed(view: PlacementGroupView, wanted: string): { readonly value: readonly PlacementRow[] } | null {
  if (view.state === "INFEASIBLE")
    throw view.failure ?? new SlimeError("placement.infeasible", `${wanted} can never be placed`, { wanted, reasons: view.waiting });
  if (view.state === "REMOVED")
    throw new SlimeError("placement.removed", `${wanted} was removed`, { placementGroupId: view.placementGroupId });
  return view.state === "CREATED" ? { value: view.rows } : null;
}
