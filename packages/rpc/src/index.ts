export type { CodecHooks, Special } from "./codec-hooks.js";
export { storedLimits, wireLimits, type FrameLimits } from "./limits.js";
export type { ObjectDescriptor } from "./object-descriptor.js";
export {
  actorSocketName,
  hostEnvironment,
  nodeSocketName,
  type ActorDescription,
  type ActorSpec,
  type HostAlive,
  type HostedActor,
  type HostExit,
  type HostFailed,
  type HostPhase,
  type HostRegistration,
  type HostShutdown,
  type HostToNode,
  type HostWelcome,
  type NodeToHost,
  type RefPayload,
  type SpecialPayloads,
} from "./host-protocol.js";
export type { CallOptions, CloseReason, ConnectOptions, Handler, Hello, IncomingCall, Peer, PeerOptions, ServeOptions, Server, Who } from "./peer-api.js";
export { connect } from "./connect.js";
export { fromFailure, originOf, readFailure, remoteStackOf, toFailure, type Failure } from "./failure.js";
export { protocolVersion, segmentAlign } from "./frame.js";
export { NdArray, type Dtype, type TypedArray } from "./nd-array.js";
export { openPeer } from "./peer.js";
export { serve } from "./serve.js";
export { checkSocketPath, socketPathBytesMax } from "./socket-path.js";
export { decodeValueFrame, encodeValue, encodeValueFrame } from "./value-frame.js";
export { estimateBytes, inlineBytesMax } from "./value-writer.js";
export type { Wire, WireEvents } from "./wire.js";
