export type { ClusterView, GpuView, Holder, NodeView } from "./cluster-view.js";
export { NodeRoom } from "./node-room.js";
export { type ActorPlan, type ActorRequest, type BundleUse, placeActor, placeInBundle } from "./place-actor.js";
export { bundlesMax, type GroupPlan, type GroupRequest, type PlacedBundle, placeGroup, type Strategy, strategies } from "./place-group.js";
export { compareAddresses, compareNodes, compareRanks } from "./rank-order.js";
export { formatAmount, formatResources, gpuResource, type Resources, resourcesFrom, resourceUnit, sumResources } from "./resources.js";
