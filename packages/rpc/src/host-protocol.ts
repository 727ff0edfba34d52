/**
 * What a daemon and an actor host say to each other, and what callers say to a host. Plain data over rpc frames, so that
 * the Node host (`@slime/runtime`) and the Python host (`slime_actor`) are the same to everybody else.
 *
 * 1. The daemon starts a host with the environment below; the host connects to `SLIME_NODE_SOCKET` with the hello
 *    `{ clusterId, who: { kind: "host", id: SLIME_PROCESS_ID, incarnation: 0, pid } }` and calls `host.register`.
 *    It does so again after every lost connection, with what it hosts by then: that is how the next daemon adopts it.
 * 2. The daemon calls `host.assign` with an `ActorSpec`, once in a host's life. The host takes it on (the call returns
 *    null), loads the module, listens on its own socket, constructs, then calls `host.alive` or, when loading or the
 *    constructor failed, `host.failed` and ends with exit code 1.
 * 3. `host.shutdown` asks for an orderly end: abort calls in progress, run the actor's `onShutdown`, call `host.exit`,
 *    exit 0. Past `graceMs` the daemon kills.
 * 4. Without a daemon for `orphanGraceMs` the host ends by itself, exit code 75; so does an idle one.
 *
 * Reports (`host.alive`, `host.failed`, `host.exit`) that could not be delivered need no queue: `host.register` says the
 * same after a reconnect.
 *
 * Callers connect to the actor's socket (`actorSocketName`) and call the user's methods by their names, with the arguments
 * as an array. Names that begin with "slime." are the host's own: `slime.ping` (any payload, returned) and
 * `slime.describe` (`ActorDescription`). The host's hello is `{ kind: "actor", id: actorId, incarnation, pid }`; a caller
 * that wants a certain life compares it. Errors: `actor.no_method`, `actor.busy`, `call.failed`, or what the method threw.
 */
import type { ObjectDescriptor } from "./object-descriptor.js";

/** Environment of a host; all are set by the daemon. */
export const hostEnvironment = {
  clusterId: "SLIME_CLUSTER_ID",
  nodeId: "SLIME_NODE_ID",
  processId: "SLIME_PROCESS_ID",
  jobId: "SLIME_JOB_ID",
  /** Of a driver that the cluster runs: the name under which its job was submitted. */
  submissionId: "SLIME_SUBMISSION_ID",
  actorId: "SLIME_ACTOR_ID",
  incarnation: "SLIME_INCARNATION",
  headAddress: "SLIME_HEAD_ADDRESS",
  socketDir: "SLIME_SOCKET_DIR",
  storeDir: "SLIME_STORE_DIR",
  nodeSocket: "SLIME_NODE_SOCKET",
} as const;

/** Calls a host makes to its daemon: name → argument → result. The argument travels as is, not in an array. */
export interface HostToNode {
  readonly "host.register": { readonly args: HostRegistration; readonly result: HostWelcome };
  readonly "host.alive": { readonly args: HostAlive; readonly result: null };
  readonly "host.failed": { readonly args: HostFailed; readonly result: null };
  readonly "host.exit": { readonly args: HostExit; readonly result: null };
  /** Ports of this machine that nobody else is given and that are free now; they return with the process's end. */
  readonly "host.leasePorts": { readonly args: { readonly count: number }; readonly result: readonly number[] };
  /** Sent, not called: what the actor does and waits for, for the stall explainer. */
  readonly "host.phase": { readonly args: HostPhase; readonly result: null };
}

/** Calls a daemon makes to a host. */
export interface NodeToHost {
  readonly "host.assign": { readonly args: ActorSpec; readonly result: null };
  readonly "host.shutdown": { readonly args: HostShutdown; readonly result: null };
}

export interface HostRegistration {
  readonly processId: string;
  readonly pid: number;
  readonly language: "node" | "python";
  /** Of the interpreter, for display: "v20.20.1", "3.11.7". */
  readonly runtimeVersion: string;
  /** What it hosts; null while idle. */
  readonly actor: HostedActor | null;
}

export interface HostedActor {
  readonly actorId: string;
  readonly incarnation: number;
  readonly jobId: string;
  readonly state: "constructing" | "alive" | "ending";
  readonly socketPath: string;
}

export interface HostWelcome {
  readonly nodeId: string;
  /** How long the host lives without a daemon. */
  readonly orphanGraceMs: number;
}

/** Everything a host needs to become an actor. */
export interface ActorSpec {
  readonly actorId: string;
  readonly incarnation: number;
  readonly jobId: string;
  readonly language: "node" | "python";
  /** Absolute file path, a `file:` URL, or what the language imports by name (a package, a dotted Python module). */
  readonly module: string;
  /** The actor's own name, for people; may be empty. */
  readonly name: string;
  /** The exported class; "default" is the default export of a Node module. */
  readonly exportName: string;
  /** The constructor's arguments: `encodeValueFrame` of an array. */
  readonly args: Uint8Array;
  /** Methods that may run at once outside any group; 1 is serial. */
  readonly concurrency: number;
  /** Named groups: methods at once in each. */
  readonly concurrencyGroups: Readonly<Record<string, number>>;
  /** Calls that may wait; more are `actor.busy`. */
  readonly pendingCallsMax: number;
  /** Set in the process before the module is loaded. What must be there at exec is set by the daemon when it spawns. */
  readonly env: Readonly<Record<string, string>>;
  /** Becomes the working directory before the module is loaded; null leaves it. */
  readonly cwd: string | null;
  readonly resources: Readonly<Record<string, number>>;
  readonly gpus: readonly { readonly index: number; readonly uuid: string }[];
  readonly placement: { readonly placementGroupId: string; readonly bundle: number } | null;
}

export interface HostAlive {
  readonly actorId: string;
  readonly incarnation: number;
  readonly socketPath: string;
  readonly pid: number;
}

export interface HostFailed {
  readonly actorId: string;
  readonly incarnation: number;
  /** `actor.creation` with the constructor's error as cause; a `Failure` in wire form, see failure.ts. */
  readonly failure: unknown;
}

export interface HostExit {
  readonly actorId: string | null;
  readonly incarnation: number;
  /** "shutdown": it was asked to; "self": the actor ended itself; "orphaned": no daemon came. */
  readonly reason: "shutdown" | "self" | "orphaned";
  readonly exitCode: number;
}

export interface HostPhase {
  readonly actorId: string;
  readonly incarnation: number;
  readonly phase: string;
  /** What it waits for, in words; null when it works. */
  readonly waitsFor: string | null;
}

export interface HostShutdown {
  readonly graceMs: number;
  readonly reason: string;
}

export interface ActorDescription {
  readonly actorId: string;
  readonly incarnation: number;
  readonly className: string;
  readonly methods: readonly string[];
  readonly pending: number;
  readonly running: readonly string[];
}

/**
 * Tags of values that mean more than data, in both directions and both languages.
 * `__stored`: this very value lies in the object store (the sender found it above 100 KiB); the receiver reads it there.
 * `__ref`: a reference as such. As a top-level argument it is read before the method starts, inside a container it stays.
 * `__actor`: an actor handle; Python carries it, unopened.
 */
export interface SpecialPayloads {
  readonly __stored: ObjectDescriptor;
  readonly __ref: RefPayload;
  readonly __actor: Readonly<Record<string, unknown>>;
}

/** A reference whose value is known: in the store, or small enough to travel along. */
export type RefPayload =
  | { readonly kind: "stored"; readonly id: string; readonly object: ObjectDescriptor }
  | { readonly kind: "inline"; readonly id: string; readonly value: unknown };

/** `n-<hex16>.sock`: where the daemon of a node listens, within the socket directory. */
export function nodeSocketName(nodeId: string): string {
  return `n-${hexOf(nodeId)}.sock`;
}

/** `a-<hex16>-<incarnation>.sock`: where one life of an actor listens, within the socket directory. */
export function actorSocketName(actorId: string, incarnation: number): string {
  return `a-${hexOf(actorId)}-${incarnation}.sock`;
}

function hexOf(id: string): string {
  return id.slice(id.indexOf("_") + 1);
}
