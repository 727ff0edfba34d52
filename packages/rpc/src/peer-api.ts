import type { Clock, Logger } from "@slime/core";
import type { CodecHooks } from "./codec-hooks.js";
import type { FrameLimits } from "./limits.js";

/** Who speaks at one end of a connection. */
export interface Who {
  readonly kind: "driver" | "host" | "actor" | "node" | "tool";
  /** An id of core's kinds: the actor's for an actor, the node's for a daemon, the process's for a host or driver. */
  readonly id: string;
  /** The life of that id, from 1; 0 for kinds that have none. */
  readonly incarnation: number;
  readonly pid: number;
}

/** What each side says first. Another protocol or cluster is `peer.incompatible`. */
export interface Hello {
  readonly clusterId: string;
  readonly who: Who;
}

export interface CallOptions {
  /** From now until the result must be here; null waits as long as the connection lives. Default: `PeerOptions.callTimeoutMs`. */
  readonly timeoutMs?: number | null;
  /** Aborting rejects the call at once with the signal's reason and aborts the callee's signal. */
  readonly signal?: AbortSignal;
  readonly traceId?: string;
  /** Equal on every retry of one call; the callee's owner de-duplicates by it (rpc only carries it). */
  readonly idempotencyKey?: string;
  /** Asks the callee to start this before what waits there (health, abort). */
  readonly urgent?: boolean;
}

/** A call that came in. Fields are plain; `signal` is made on first use, because most handlers never look. */
export interface IncomingCall {
  readonly method: string;
  readonly args: unknown;
  /** Aborts on the caller's cancel, the deadline, and the end of the connection. */
  readonly signal: AbortSignal;
  /** Whether `signal` has aborted, without making it. */
  readonly aborted: boolean;
  /** Milliseconds left when the call arrived; null without a deadline. */
  readonly deadlineMs: number | null;
  readonly traceId: string | null;
  readonly idempotencyKey: string | null;
  readonly urgent: boolean;
  /** False for `send`: the returned value goes nowhere and an error is only logged. */
  readonly wantsReply: boolean;
  readonly peer: Peer;
}

/** Answers one call: a value, a promise of one, or a throw. Calls start in the order the caller made them. */
export type Handler = (call: IncomingCall) => unknown;

/** Why a connection ended: `closed` by either side's wish, `broken` otherwise. */
export interface CloseReason {
  readonly kind: "closed" | "broken";
  readonly reason: string;
}

export interface PeerOptions {
  readonly hello: Hello;
  /** Answers the other side's calls; without it every call fails with `not_found`. */
  readonly handler?: Handler;
  readonly hooks?: CodecHooks;
  /** The head epoch this process knows, stamped on each frame. Default 0: none known. */
  readonly epoch?: () => number;
  /** Called when a frame brings a higher head epoch than seen on this connection. */
  readonly onEpoch?: (epoch: number) => void;
  readonly clock?: Clock;
  readonly log?: Logger;
  readonly limits?: Partial<FrameLimits>;
  /** Default 60,000. */
  readonly callTimeoutMs?: number | null;
  /** Calls of ours that wait for a result; more are `wire.limit`. Default 65,536. Also bounds calls in progress for the other side. */
  readonly pendingCallsMax?: number;
  /** Bytes that wait to be written; a call beyond is `wire.limit`, and so is a result (sent as that failure). Default 64 MiB. */
  readonly outgoingBytesMax?: number;
  /**
   * A connection that has said nothing for `pingMs` is asked, and one silent for `silenceMsMax` is broken. Default 5,000 and 15,000.
   * A process that computes without yielding cannot answer: give connections to such actors a longer silence, or null for none.
   */
  readonly heartbeat?: { readonly pingMs: number; readonly silenceMsMax: number } | null;
  /** Until the other side's hello is here. Default 5,000. */
  readonly helloTimeoutMs?: number;
  /** When a turn's messages leave; default: after the current callback and all promises it settles. Tests on virtual time pass `queueMicrotask`. */
  readonly endOfTurn?: (flush: () => void) => void;
}

/** One end of a connection; both ends call and answer. */
export interface Peer extends AsyncDisposable {
  /** What the other side said of itself. */
  readonly remote: Hello;
  /** Highest head epoch seen on frames from the other side; 0 at first. */
  readonly remoteEpoch: number;
  /**
   * Calls a method of the other side. `args` is encoded before this returns, so it may be changed afterwards.
   * Rejects with the callee's error (code, message, remote stack, causes), `call.deadline`, `wire.broken`, `wire.limit`,
   * `codec.refused`, or the reason of `signal`.
   */
  readonly call: (method: string, args: unknown, options?: CallOptions) => Promise<unknown>;
  /** A call without an answer, in order with the others. Throws `codec.refused`, `wire.limit` or `wire.broken`. */
  readonly send: (method: string, args: unknown, options?: Pick<CallOptions, "traceId" | "urgent">) => void;
  /** Settles once, never rejects. */
  readonly closed: Promise<CloseReason>;
  /** True from the end of the connection on. */
  readonly ended: boolean;
  /** Admits no new calls, waits up to `drainMs` (default 0) for those in progress both ways, then ends. Idempotent. */
  readonly close: (options?: { readonly drainMs?: number; readonly reason?: string }) => Promise<void>;
}

export interface ConnectOptions extends PeerOptions {
  /** Gives up on connecting; the connection that results does not follow it. */
  readonly signal?: AbortSignal;
}

export interface ServeOptions extends PeerOptions {
  /** A unix socket. A dead one's file is replaced; a live one is `state.locked`. Mode 0600. */
  readonly path: string;
  /** Looks at the other side's hello; a throw refuses the connection with that error. */
  readonly accept?: (hello: Hello) => void;
  /** Called with each connection after both hellos. */
  readonly onPeer?: (peer: Peer) => void;
  /** Connections at once; more are turned away. Default 4,096. */
  readonly peersMax?: number;
}

export interface Server extends AsyncDisposable {
  readonly path: string;
  readonly peers: ReadonlySet<Peer>;
  /** Stops listening, closes every peer (`drainMs` each, at once), removes the socket file. Idempotent. */
  readonly close: (options?: { readonly drainMs?: number; readonly reason?: string }) => Promise<void>;
}
