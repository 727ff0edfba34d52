import type { ClusterView, NodeView } from "./cluster-view.js";
import { heldBy, listText, offers, shortages } from "./explain.js";
import { gpuDemand, NodeRoom, pickDevices, wastesGpus } from "./node-room.js";
import type { PlacedBundle } from "./place-group.js";
import { compareNodes } from "./rank-order.js";
import { formatAmount, formatResources, gpuResource, type Resources, resourceUnit } from "./resources.js";

export interface ActorRequest {
  readonly resources: Resources;
  /** Each must equal the node's. */
  readonly labels: Readonly<Record<string, string>>;
  /** Hard affinity; null: any node. */
  readonly nodeId: string | null;
}

export type ActorPlan =
  | { readonly kind: "placed"; readonly nodeId: string; readonly gpuIndices: readonly number[] }
  | { readonly kind: "waiting"; readonly reasons: readonly string[] }
  | { readonly kind: "infeasible"; readonly reasons: readonly string[] };

/** Below this use of its fullest resource a node counts as empty, so that actors pack first and then balance. */
const packedUntil = 0.5;

/** A node for one actor or driver outside any group. Prefers nodes without GPUs for those who ask for none. Keeps S2 to S5. */
export function placeActor(view: ClusterView, request: ActorRequest): ActorPlan {
  const candidates = view.nodes
    .filter((node) => (request.nodeId === null || node.nodeId === request.nodeId) && matches(node, request.labels))
    .sort(compareNodes);
  const asksNothing = Object.values(request.resources).every((amount) => amount === 0);
  const best = candidates
    .filter((node) => node.schedulable)
    .map((node) => ({ node, gpuIndices: new NodeRoom(node).take(request.resources) }))
    .filter((fit): fit is { node: NodeView; gpuIndices: readonly number[] } => fit.gpuIndices !== null)
    .map((fit) => ({
      ...fit,
      waste: Number(wastesGpus(fit.node, request.resources)),
      score: asksNothing ? fit.node.load : utilisation(fit.node),
    }))
    .sort((a, b) => (asksNothing ? 0 : a.waste - b.waste) || a.score - b.score)[0];
  if (best !== undefined) return { kind: "placed", nodeId: best.node.nodeId, gpuIndices: best.gpuIndices };
  const never = whyNever(view, candidates, request);
  return never.length > 0 ? { kind: "infeasible", reasons: never } : { kind: "waiting", reasons: whyNotNow(view, candidates, request) };
}

function matches(node: NodeView, labels: Readonly<Record<string, string>>): boolean {
  return Object.entries(labels).every(([key, value]) => node.labels[key] === value);
}

/** Use of the fullest resource, 0 while that is below one half. */
function utilisation(node: NodeView): number {
  const used = Object.entries(node.total).map(([name, total]) => (total === 0 ? 0 : 1 - (node.free[name] ?? 0) / total));
  const most = Math.max(0, ...used);
  return most < packedUntil ? 0 : most;
}

function whyNever(view: ClusterView, candidates: readonly NodeView[], request: ActorRequest): readonly string[] {
  if (gpuDemand(request.resources).kind === "impossible")
    return [`GPU ${formatAmount(request.resources[gpuResource] ?? 0)}: more than one GPU must be a whole number`];
  if (view.nodes.length === 0) return [];
  if (request.nodeId !== null && !view.nodes.some((node) => node.nodeId === request.nodeId))
    return [`node ${request.nodeId} is not part of the cluster: ${listText(view.nodes.map((node) => node.nodeId))}`];
  if (candidates.length === 0)
    return [
      `no node has the labels ${JSON.stringify(request.labels)}: ${listText(view.nodes.map((node) => `${node.nodeId} has ${JSON.stringify(node.labels)}`))}`,
    ];
  if (candidates.some((node) => new NodeRoom(node, true).take(request.resources) !== null)) return [];
  return [`{${formatResources(request.resources)}} fits no node: ${offers(candidates, request.resources, "total")}`];
}

function whyNotNow(view: ClusterView, candidates: readonly NodeView[], request: ActorRequest): readonly string[] {
  if (view.nodes.length === 0) return ["no node has joined yet; start one with `slime-worker join`"];
  const usable = candidates.filter((node) => node.schedulable);
  if (usable.length === 0) {
    const silent = listText(candidates.map((node) => node.nodeId));
    return [`${silent} ${candidates.length === 1 ? "is" : "are"} silent and ${candidates.length === 1 ? "gets" : "get"} nothing new`];
  }
  const among: ClusterView = {
    nodes: candidates,
    holders: view.holders.filter((holder) => candidates.some((node) => node.nodeId === holder.nodeId)),
  };
  const short = shortages(among, request.resources, "free");
  if (short.length > 0) return short;
  return [
    `{${formatResources(request.resources)}} fits no node now: ${offers(usable, request.resources, "free")}${heldBy(among, gpuResource)}`,
  ];
}

/** What already runs inside a bundle. */
export interface BundleUse {
  readonly bundle: number;
  readonly resources: Resources;
  readonly gpuIndices: readonly number[];
}

/** A place inside a created group: its bundle and the GPUs of that bundle, or why there is no room. `bundleIndex` -1: any bundle with room, in order of index. */
export function placeInBundle(
  bundles: readonly PlacedBundle[],
  uses: readonly BundleUse[],
  demand: Resources,
  bundleIndex: number,
):
  | { readonly kind: "placed"; readonly bundle: PlacedBundle; readonly gpuIndices: readonly number[] }
  | { readonly kind: "waiting" | "infeasible"; readonly reasons: readonly string[] } {
  const candidates = bundles.filter((bundle) => bundleIndex < 0 || bundle.bundle === bundleIndex).sort((a, b) => a.bundle - b.bundle);
  if (candidates.length === 0) return { kind: "infeasible", reasons: [`the group has no bundle ${bundleIndex}: it has ${bundles.length}`] };
  for (const bundle of candidates) {
    const gpuIndices = fitInBundle(
      bundle,
      uses.filter((use) => use.bundle === bundle.bundle),
      demand,
    );
    if (gpuIndices !== null) return { kind: "placed", bundle, gpuIndices };
  }
  const could = candidates.some((bundle) => fitInBundle(bundle, [], demand) !== null);
  const which = bundleIndex < 0 ? "no bundle" : `bundle ${bundleIndex}`;
  const offered = listText(candidates.map((bundle) => `bundle ${bundle.bundle} is {${formatResources(bundle.resources)}}`));
  return could
    ? {
        kind: "waiting",
        reasons: [`{${formatResources(demand)}}: ${bundleIndex < 0 ? "no bundle has" : `${which} has no`} room now; ${offered}`],
      }
    : {
        kind: "infeasible",
        reasons: [`{${formatResources(demand)}} fits ${which === "no bundle" ? which : `not into ${which}`}: ${offered}`],
      };
}

function fitInBundle(bundle: PlacedBundle, uses: readonly BundleUse[], demand: Resources): readonly number[] | null {
  for (const [name, amount] of Object.entries(demand)) {
    const used = uses.reduce((sum, use) => sum + (use.resources[name] ?? 0), 0);
    if ((bundle.resources[name] ?? 0) - used < amount) return null;
  }
  const share = gpuDemand(bundle.resources);
  const capacity = share.kind === "share" ? share.amount : resourceUnit;
  const devices = bundle.gpuIndices.map((index) => {
    const used = uses
      .filter((use) => use.gpuIndices.includes(index))
      .reduce((sum, use) => sum + Math.min(use.resources[gpuResource] ?? 0, resourceUnit), 0);
    return { index, free: capacity - used };
  });
  const picked = pickDevices(devices, gpuDemand(demand));
  return picked === null ? null : picked.map((device) => device.index);
}
