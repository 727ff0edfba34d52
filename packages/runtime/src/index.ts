export {
  actor,
  free,
  gang,
  get,
  kill,
  kv,
  nodes,
  placementGroup,
  put,
  reportOutput,
  reportPhase,
  type WaitForOptions,
  wait,
} from "./api.js";
export type { ActorOptions, ActorPlacementOptions } from "./create-actor.js";
export { type ActorSource, type ActorType, actorType, defineActors, pythonActor } from "./define-actor.js";
export type { Gang, GangCallOptions, GangMethod, GangOptions } from "./gang.js";
export type {
  ActorClass,
  ActorHandle,
  ActorState,
  ActorStatus,
  CallOptions,
  HandleControls,
  NotCallable,
  RefArgs,
  RemoteMethod,
  RemoteMethods,
  WaitOptions,
} from "./handle-types.js";
export { type ActorContext, type CallContext, ctx } from "./host/context.js";
export { hostEntry } from "./host-entry.js";
export { runtimeLimits } from "./limits.js";
export { lineLogger } from "./line-logger.js";
export { ObjectRef } from "./object-ref.js";
export type { PlacementGroup, PlacementGroupOptions, PlacementWaitOptions } from "./placement-group.js";
export type { NodeView, PlacementGroupState, PlacementGroupView, PlacementRow, PlacementStrategy } from "./ports.js";
export type { Resources } from "./resources.js";
export { type InitOptions, init, type Session, shutdown } from "./session.js";
