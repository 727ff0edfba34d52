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
