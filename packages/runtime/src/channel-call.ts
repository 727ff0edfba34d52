import { setMaxListeners } from "node:events";
import { type Clock, type Logger, type Random, SlimeError, type Timer } from "@slime/core";
import type { CallOptions, Peer } from "@slime/rpc";
import type { ActorView } from "./actor-view.js";

/** One call on its way. One of `ok` and `fail` is called, once (C2). */
export interface ChannelCall {
  /** With its group: "train@gpu". */
  readonly method: string;
  readonly args: readonly unknown[];
  readonly timeoutMs: number | null;
  readonly signal: AbortSignal | undefined;
  readonly retries: number;
  readonly key: string | undefined;
  readonly traceId: string | undefined;
  /** Goes ahead of what waits, here and in the actor. */
  readonly urgent: boolean;
  readonly wantsReply: boolean;
  readonly ok: (value: unknown) => void;
  readonly fail: (error: unknown) => void;
}

/** Arguments ready to leave. */
export interface PreparedArgs {
  readonly args: readonly unknown[];
  /** Gives back what was put in the store for this call. */
  readonly release: (() => void) | null;
}

export interface ChannelParts {
  /** Connects to one life; rejects when another answers there. */
  readonly dial: (socket: string, actorId: string, incarnation: number) => Promise<Peer>;
  /** Resolves references and stores large values. Called once per call, in order. */
  readonly prepare: (args: readonly unknown[]) => PreparedArgs | Promise<PreparedArgs>;
  /** A copy for a call that cannot leave at once. */
  readonly keep: (args: readonly unknown[]) => readonly unknown[];
  /** Follows the actor at the head; called at most once. */
  readonly follow: (onView: (view: ActorView) => void) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly pendingCallsMax: number;
}

export interface ActorChannel {
  /** Never throws; a refusal reaches `fail`. */
  readonly submit: (call: ChannelCall) => void;
  readonly view: () => ActorView;
  readonly heard: (view: ActorView) => void;
  readonly onView: (listener: (view: ActorView) => void) => () => void;
  /** Begins to follow the actor at the head, if that has not begun. */
  readonly follow: () => void;
  readonly pending: () => number;
  readonly close: () => Promise<void>;
}

/** A call within its channel, until it is settled. */
export interface Entry {
  call: ChannelCall;
  readonly sequence: number;
  /** When it was made. */
  readonly sinceMs: number;
  readonly deadlineAt: number | null;
  retriesLeft: number;
  prepared: PreparedArgs | "preparing" | null;
  timer: Timer | null;
  unlisten: (() => void) | null;
  done: boolean;
  /** Counts sendings: an answer to an older one is ignored. */
  sending: number;
  /** Where it stands among the calls in flight; -1: not in flight. */
  slot: number;
}

/** What the wire is told with a call; `nowMs` by the channel's clock. */
export function wireOptions({ call, deadlineAt }: Entry, nowMs: number): CallOptions {
  const timeoutMs = deadlineAt === null ? null : Math.max(1, deadlineAt - nowMs);
  const { urgent, signal, key, traceId } = call;
  if (signal === undefined && key === undefined && traceId === undefined) return { timeoutMs, urgent };
  return {
    timeoutMs,
    urgent,
    ...(signal === undefined ? undefined : { signal }),
    ...(key === undefined ? undefined : { idempotencyKey: key }),
    ...(traceId === undefined ? undefined : { traceId }),
  };
}

/** Calls in flight on one connection. Entering and leaving allocate nothing: this is the hot path. */
export class InFlight {
  #entries: Entry[] = [];

  add(entry: Entry): void {
    entry.slot = this.#entries.length;
    this.#entries.push(entry);
  }

  remove(entry: Entry): void {
    const last = this.#entries.pop();
    if (last === undefined || entry.slot < 0) return;
    if (last !== entry) {
      this.#entries[entry.slot] = last;
      last.slot = entry.slot;
    }
    entry.slot = -1;
  }

  /** Takes all out, in the order they were made. */
  takeAll(): Entry[] {
    const all = this.#entries.sort(inOrder);
    this.#entries = [];
    for (const entry of all) entry.slot = -1;
    return all;
  }
}

/** Urgent calls first, then in the order they were made (C1). */
export function inOrder(a: Entry, b: Entry): number {
  return Number(b.call.urgent) - Number(a.call.urgent) || a.sequence - b.sequence;
}

/** What an actor that is ending answers: the call was not begun, and the head will soon say what becomes of the actor. */
export const endingReason = "it is ending";

/** True when this very actor refused the call because it ends; a method that met another actor's end failed by itself. */
export function neverStarted(error: unknown, actorId: string): boolean {
  return SlimeError.is(error, "actor.unavailable") && error.details.actorId === actorId && error.details.reason === endingReason;
}

const shared = new WeakSet<AbortSignal>();

/** One signal over thousands of calls is how a loop is cancelled, not a leak: Node need not warn of its listeners. */
export function allowMany(signal: AbortSignal): void {
  if (shared.has(signal)) return;
  shared.add(signal);
  setMaxListeners(0, signal);
}

/** A cancelled call fails with `call.cancelled`, unless whoever cancelled gave a failure of its own. */
export function cancelled(what: string, reason: unknown): unknown {
  if (SlimeError.isAny(reason)) return reason;
  return new SlimeError("call.cancelled", `${what} was cancelled by its caller`, { what }, { cause: reason });
}
