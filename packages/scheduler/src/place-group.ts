/**
 * Placement groups: (cluster view, bundles, strategy) → plan. Pure and deterministic.
 * Invariants: S2 shares of a GPU are pinned to one device; S3 a plan fits what was free: no device and no amount is given twice;
 * S4 equal inputs give equal plans, in rank order; S5 "infeasible" is only said of what no empty cluster of these nodes could hold.
 */
import type { ClusterView, NodeView } from "./cluster-view.js";
import { listText, offers, shortages } from "./explain.js";
import { gpuDemand, NodeRoom, wastesGpus } from "./node-room.js";
import { compareNodes, compareRanks } from "./rank-order.js";
import { formatResources, gpuResource, type Resources, sumResources } from "./resources.js";

export const strategies = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] as const;
export type Strategy = (typeof strategies)[number];

export interface PlacedBundle {
  /** Index into the request's bundles. */
  readonly bundle: number;
  readonly nodeId: string;
  readonly address: string;
  readonly resources: Resources;
  /** One for a share of a GPU, n for n whole ones, none for a bundle without. */
  readonly gpuIndices: readonly number[];
  readonly gpuUuids: readonly string[];
}

export interface GroupRequest {
  readonly bundles: readonly Resources[];
  readonly strategy: Strategy;
  /** Bundles that keep their place (others were lost with a node); the view counts them as held. */
  readonly kept?: readonly PlacedBundle[];
}

export type GroupPlan =
  | { readonly kind: "placed"; readonly bundles: readonly PlacedBundle[] }
  | { readonly kind: "waiting"; readonly reasons: readonly string[] }
  | { readonly kind: "infeasible"; readonly reasons: readonly string[] };

/** Steps of the search past the first descent; beyond it a plan that exists may be missed until something changes. */
const searchStepsMax = 2_000;
/** Bundles in one group at most. */
export const bundlesMax = 10_000;

/**
 * Places a group's bundles, all or none; kept ones stay where they are. `infeasible` means not even the empty cluster could hold
 * it, `waiting` that it could once others let go.
 */
export function placeGroup(view: ClusterView, request: GroupRequest): GroupPlan {
  const kept = request.kept ?? [];
  const open = request.bundles
    .map((resources, bundle) => ({ resources, bundle }))
    .filter(({ bundle }) => !kept.some((other) => other.bundle === bundle));
  const usable = view.nodes.filter((node) => node.schedulable).sort(compareNodes);
  const found = search(usable, open, request.strategy, kept, false);
  if (found.kind === "found") return { kind: "placed", bundles: [...kept, ...found.bundles].sort(compareRanks) };
  const all = request.bundles.map((resources, bundle) => ({ resources, bundle }));
  const never = whyNever(view, all, request.strategy);
  if (never.length > 0) return { kind: "infeasible", reasons: never };
  return { kind: "waiting", reasons: whyNotNow(view, open, request.strategy) };
}

interface Open {
  readonly bundle: number;
  readonly resources: Resources;
}

type Search =
  | { readonly kind: "found"; readonly bundles: readonly PlacedBundle[] }
  | { readonly kind: "none"; readonly exhausted: boolean };

/** Depth first, bundles with the scarcest wishes first, nodes in the strategy's order of preference; the first descent is the greedy plan. */
function search(
  nodes: readonly NodeView[],
  open: readonly Open[],
  strategy: Strategy,
  kept: readonly PlacedBundle[],
  empty: boolean,
): Search {
  const rooms = nodes.map((node) => new NodeRoom(node, empty));
  const uses = new Map<string, number>();
  for (const { nodeId } of kept) uses.set(nodeId, (uses.get(nodeId) ?? 0) + 1);
  const order = [...open].sort(
    (a, b) => scarcity(b.resources) - scarcity(a.resources) || weight(b.resources) - weight(a.resources) || a.bundle - b.bundle,
  );
  const placed: PlacedBundle[] = [];
  let steps = 0;
  const descend = (at: number): boolean => {
    const next = order[at];
    if (next === undefined) return true;
    for (const room of preferred(rooms, order.slice(at), strategy, uses)) {
      if (++steps > searchStepsMax + order.length) return false;
      const gpuIndices = room.take(next.resources);
      if (gpuIndices === null) continue;
      const { node } = room;
      uses.set(node.nodeId, (uses.get(node.nodeId) ?? 0) + 1);
      const gpuUuids = gpuIndices.map((index) => node.gpus.find((gpu) => gpu.index === index)?.uuid ?? "");
      placed.push({ bundle: next.bundle, nodeId: node.nodeId, address: node.address, resources: next.resources, gpuIndices, gpuUuids });
      if (descend(at + 1)) return true;
      placed.pop();
      uses.set(node.nodeId, (uses.get(node.nodeId) ?? 0) - 1);
      room.giveBack(next.resources, gpuIndices);
    }
    return false;
  };
  if (descend(0)) return { kind: "found", bundles: placed };
  // Which device a share takes is a greedy choice inside a node, so only searches without shares are exhaustive.
  return {
    kind: "none",
    exhausted: steps <= searchStepsMax + order.length && !open.some(({ resources }) => gpuDemand(resources).kind === "share"),
  };
}

/** The nodes to try for the first of `rest`, best first. `uses` counts this group's bundles per node. */
function preferred(
  rooms: readonly NodeRoom[],
  rest: readonly Open[],
  strategy: Strategy,
  uses: ReadonlyMap<string, number>,
): readonly NodeRoom[] {
  const demand = rest[0]?.resources ?? {};
  const used = (room: NodeRoom) => uses.get(room.node.nodeId) ?? 0;
  const waste = (room: NodeRoom) => Number(wastesGpus(room.node, demand));
  switch (strategy) {
    case "STRICT_PACK": {
      const home = rooms.filter((room) => used(room) > 0);
      if (home.length > 0) return home;
      return order(
        rooms.filter((room) => room.count(rest.map((open) => open.resources)) === rest.length),
        waste,
      );
    }
    case "STRICT_SPREAD":
      return order(
        rooms.filter((room) => used(room) === 0),
        waste,
      );
    case "SPREAD":
      return order(rooms, used, waste);
    case "PACK": {
      const demands = rest.map((open) => open.resources);
      const takes = new Map(rooms.map((room) => [room, room.count(demands)]));
      return order(
        rooms,
        (room) => -Math.min(1, used(room)),
        (room) => -(takes.get(room) ?? 0),
        waste,
      );
    }
  }
}

/** Sorted by the keys in turn, ascending; rooms come in node order and the sort is stable, so ties keep it. */
function order(rooms: readonly NodeRoom[], ...keys: readonly ((room: NodeRoom) => number)[]): readonly NodeRoom[] {
  const keyed = rooms.map((room) => ({ room, values: keys.map((key) => key(room)) }));
  keyed.sort((a, b) => {
    for (const [i, value] of a.values.entries()) {
      const difference = value - (b.values[i] ?? 0);
      if (difference !== 0) return difference;
    }
    return 0;
  });
  return keyed.map(({ room }) => room);
}

/** Whole GPUs before shares before none. */
function scarcity(resources: Resources): number {
  return resources[gpuResource] ?? 0;
}

function weight(resources: Resources): number {
  return Object.values(resources).reduce((sum, amount) => sum + amount, 0);
}

/** S5: why no cluster of these nodes could ever hold it, even empty; nothing when it could. With no node at all nothing is said: the first may still join. */
function whyNever(view: ClusterView, all: readonly Open[], strategy: Strategy): readonly string[] {
  const crooked = all.filter(({ resources }) => gpuDemand(resources).kind === "impossible");
  if (crooked.length > 0)
    return crooked
      .slice(0, 4)
      .map(
        ({ bundle, resources }) => `bundle ${bundle} asks for GPU ${formatResources(resources)}: more than one GPU must be a whole number`,
      );
  if (view.nodes.length === 0) return [];
  const reasons = shortages(view, sumResources(all.map((open) => open.resources)), "total");
  if (reasons.length > 0) return reasons;
  const lonely = all.filter(({ resources }) => !view.nodes.some((node) => new NodeRoom(node, true).take(resources) !== null));
  const first = lonely[0];
  if (first !== undefined)
    return [`bundle ${first.bundle} {${formatResources(first.resources)}} fits no node: ${offers(view.nodes, first.resources, "total")}`];
  const nodes = [...view.nodes].sort(compareNodes);
  if (strategy === "STRICT_SPREAD" && all.length > nodes.length)
    return [`STRICT_SPREAD wants ${all.length} nodes, the cluster has ${nodes.length}`];
  if (strategy === "STRICT_PACK") {
    const wanted = sumResources(all.map((open) => open.resources));
    if (!nodes.some((node) => Object.entries(wanted).every(([name, amount]) => (node.total[name] ?? 0) >= amount)))
      return [`STRICT_PACK wants ${formatResources(wanted)} on one node: ${offers(nodes, wanted, "total")}`];
  }
  const empty = search(nodes, all, strategy, [], true);
  if (empty.kind === "found" || !empty.exhausted) return [];
  return [
    `${strategy} of ${all.length} bundles fits these nodes in no way, even empty: ${listText(nodes.map((node) => `${node.nodeId} has ${formatResources(node.total)}`))}`,
  ];
}

/** What is missing now, with the numbers and who holds it. */
function whyNotNow(view: ClusterView, open: readonly Open[], strategy: Strategy): readonly string[] {
  const silent = view.nodes.filter((node) => !node.schedulable);
  const notes =
    silent.length > 0
      ? [
          `${listText(silent.map((node) => node.nodeId))} ${silent.length === 1 ? "is" : "are"} silent and ${silent.length === 1 ? "gets" : "get"} nothing new`,
        ]
      : [];
  if (view.nodes.length === 0) return ["no node has joined yet; start one with `slime-worker join`"];
  const wanted = sumResources(open.map(({ resources }) => resources));
  const short = shortages(view, wanted, "free");
  if (short.length > 0) return [...short, ...notes];
  const usable = view.nodes.filter((node) => node.schedulable);
  const lonely = open.find(({ resources }) => !usable.some((node) => new NodeRoom(node).take(resources) !== null));
  if (lonely !== undefined)
    return [
      `bundle ${lonely.bundle} {${formatResources(lonely.resources)}} fits no node now: ${offers(usable, lonely.resources, "free")}`,
      ...notes,
    ];
  return [
    `enough is free in all, not in a way that ${strategy} of ${open.length} bundles fits: ${offers(usable, wanted, "free")}`,
    ...notes,
  ];
}
