export type { CodecHooks, Special } from "./codec-hooks.js";
export { connect } from "./connect.js";
export { type Failure, fromFailure, originOf, readFailure, remoteStackOf, toFailure } from "./failure.js";
export { protocolVersion, segmentAlign } from "./frame.js";
export {
  type ActorDescription,
  type ActorSpec,
  actorSocketName,
  type HostAlive,
  type HostExit,
  type HostedActor,
  type HostFailed,
  type HostPhase,
  type HostRegistration,
  type HostShutdown,
  type HostToNode,
  type HostWelcome,
  hostEnvironment,
  type NodeToHost,
  nodeSocketName,
  type RefPayload,
  type SpecialPayloads,
} from "./host-protocol.js";
export { jobOutputKey } from "./job-keys.js";
export { type FrameLimits, storedLimits, wireLimits } from "./limits.js";
export { type Dtype, NdArray, type TypedArray } from "./nd-array.js";
export type { ObjectDescriptor } from "./object-descriptor.js";
export { openPeer } from "./peer.js";
export type {
  CallOptions,
  CloseReason,
  ConnectOptions,
  Handler,
  Hello,
  IncomingCall,
  Peer,
  PeerOptions,
  ServeOptions,
  Server,
  Who,
} from "./peer-api.js";
export { serve } from "./serve.js";
export { checkSocketPath, socketPathBytesMax } from "./socket-path.js";
export { decodeValueFrame, encodeValue, encodeValueFrame } from "./value-frame.js";
export { estimateBytes, inlineBytesMax } from "./value-writer.js";
export type { Wire, WireEvents } from "./wire.js";
