/** The daemon's judgement and its link without a machine around them: for clusters in one process, on virtual time. */
export { adoptionEvent, settle } from "./adoption.js";
export { type Bundles, type GpuShares, gpuShares, type Reservation, reservedShares, sumShares } from "./bundles.js";
export type { StepContext } from "./draft.js";
export { type EffectRunner, type EffectTools, effectRunner } from "./effects.js";
export { headEvent } from "./head-events.js";
export { type HeadDialler, type HeadLink, type HeadLinkOptions, type HeadStream, headLink } from "./head-link.js";
export type { HostServer } from "./host-server.js";
export { controlProtocol, nodeLimits } from "./limits.js";
export { emptyNode, type NodeEffect, type NodeEvent, type NodeState } from "./node-state.js";
export type { Adopted, LaunchOrder, ProcessKeeper } from "./process-keeper.js";
export { inventory } from "./reports.js";
export { step } from "./step.js";
