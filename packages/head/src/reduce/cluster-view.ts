import type { PlannedBundle } from "@slime/rpc/control";
import type { PlacedBundle } from "@slime/scheduler";
import { type ClusterView, gpuResource, type Holder, type NodeView, type Resources, resourceUnit } from "@slime/scheduler";
import type { HeadState } from "../state/head-state.js";
import { type ActorRecord, type GroupRecord, type JobRecord, nodePresent } from "../state/records.js";

/** One share of one node that somebody holds. */
export interface Holding extends Holder {
  readonly gpuIndices: readonly number[];
}

/** Who holds what, now. Actors inside a group hold their group's bundles, not more. */
export function holdings(state: HeadState): readonly Holding[] {
  const held: Holding[] = [];
  for (const group of state.groups.where("life", "live")) {
    for (const bundle of group.plan)
      held.push({ what: groupTitle(group), nodeId: bundle.nodeId, resources: bundle.resources, gpuIndices: bundle.gpuIndices });
  }
  for (const actor of state.actors.where("life", "live")) {
    if (actor.place !== null && actor.place.bundle === null)
      held.push({
        what: actorTitle(actor),
        nodeId: actor.place.nodeId,
        resources: actor.spec.resources,
        gpuIndices: actor.place.gpuIndices,
      });
  }
  for (const job of state.jobs.where("life", "live")) {
    if (job.nodeId !== null)
      held.push({ what: jobTitle(job), nodeId: job.nodeId, resources: job.spec.resources, gpuIndices: job.gpuIndices });
  }
  return held;
}

/** The scheduler's view: every node that is or may come back, less what is held. */
export function clusterView(state: HeadState): ClusterView {
  const held = holdings(state);
  const byNode = new Map<string, Holding[]>();
  for (const holding of held) {
    const list = byNode.get(holding.nodeId);
    if (list === undefined) byNode.set(holding.nodeId, [holding]);
    else list.push(holding);
  }
  const nodes: NodeView[] = [];
  for (const node of state.nodes.where("present", "yes")) {
    const here = byNode.get(node.nodeId) ?? [];
    const gpus = node.gpus.map((gpu) => ({
      index: gpu.index,
      uuid: gpu.uuid,
      free: resourceUnit - here.reduce((sum, holding) => sum + shareOf(holding, gpu.index), 0),
    }));
    const free: Record<string, number> = {};
    for (const [name, total] of Object.entries(node.resources))
      free[name] = total - here.reduce((sum, holding) => sum + (holding.resources[name] ?? 0), 0);
    if (gpus.length > 0) free[gpuResource] = gpus.reduce((sum, gpu) => sum + gpu.free, 0);
    const schedulable = node.state === "ALIVE" && (state.links.get(node.nodeId)?.link ?? null) !== null;
    nodes.push({
      nodeId: node.nodeId,
      address: node.address,
      total: node.resources,
      free,
      gpus,
      labels: node.labels,
      schedulable,
      load: state.actors.count("node", node.nodeId) + state.jobs.count("node", node.nodeId),
    });
  }
  const present = new Set(nodes.map((node) => node.nodeId));
  return { nodes, holders: held.filter((holding) => present.has(holding.nodeId)) };
}

/** How much of one GPU a holding takes: all of each of several, or its share of the single one. */
export function shareOf(holding: { readonly resources: Resources; readonly gpuIndices: readonly number[] }, index: number): number {
  return holding.gpuIndices.includes(index) ? Math.min(holding.resources[gpuResource] ?? 0, resourceUnit) : 0;
}

/** The scheduler's placed bundle as the control protocol and the records have it; a copy, so that records share nothing with a plan. */
export function plannedBundle(bundle: PlacedBundle): PlannedBundle {
  const { bundle: index, resources, nodeId, address, gpuIndices, gpuUuids } = bundle;
  return { index, resources: { ...resources }, nodeId, gpuIndices: [...gpuIndices], address, gpuUuids: [...gpuUuids] };
}

/** The reverse of `plannedBundle`, for placing actors within a plan. */
export function placedBundle(bundle: PlannedBundle): PlacedBundle {
  const { index, ...rest } = bundle;
  return { bundle: index, ...rest };
}

/** Nodes of a plan, each once, that are part of the cluster. */
export function nodesOf(state: HeadState, plan: readonly PlannedBundle[]): readonly string[] {
  const ids = new Set(plan.map((bundle) => bundle.nodeId));
  return [...ids].filter((id) => {
    const node = state.nodes.get(id);
    return node !== undefined && nodePresent(node);
  });
}

export const actorTitle = (actor: ActorRecord): string => `actor ${actor.spec.name || actor.spec.className} (${actor.actorId})`;
export const groupTitle = (group: GroupRecord): string =>
  `placement group ${group.name === "" ? "" : `${group.name} `}(${group.placementGroupId})`;
export const jobTitle = (job: JobRecord): string => `driver of ${job.submissionId || job.jobId}`;
