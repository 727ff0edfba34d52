export type { ClusterView, GpuView, Holder, NodeView } from "./cluster-view.js";
export { NodeRoom } from "./node-room.js";
export { placeActor, placeInBundle, type ActorPlan, type ActorRequest, type BundleUse } from "./place-actor.js";
export { bundlesMax, placeGroup, strategies, type GroupPlan, type GroupRequest, type PlacedBundle, type Strategy } from "./place-group.js";
export { compareAddresses, compareNodes, compareRanks } from "./rank-order.js";
export { formatAmount, formatResources, gpuResource, resourcesFrom, resourceUnit, sumResources, type Resources } from "./resources.js";
