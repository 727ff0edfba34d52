/** The daemon's judgement and its link without a machine around them: for clusters in one process, on virtual time. */
export { adoptionEvent, settle } from "./adoption.js";
export { gpuShares, reservedShares, sumShares, type Bundles, type GpuShares, type Reservation } from "./bundles.js";
export type { StepContext } from "./draft.js";
export { effectRunner, type EffectRunner, type EffectTools } from "./effects.js";
export { headEvent } from "./head-events.js";
export { headLink, type HeadDialler, type HeadLink, type HeadLinkOptions, type HeadStream } from "./head-link.js";
export type { HostServer } from "./host-server.js";
export { controlProtocol, nodeLimits } from "./limits.js";
export { emptyNode, type NodeEffect, type NodeEvent, type NodeState } from "./node-state.js";
export type { Adopted, LaunchOrder, ProcessKeeper } from "./process-keeper.js";
export { inventory } from "./reports.js";
export { fill, step } from "./step.js";
