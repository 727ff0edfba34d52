import { SlimeError } from "@slime/core";

/** What an actor knows of itself and of the call it runs. */
export interface ActorContext {
  readonly actorId: string;
  readonly jobId: string;
  readonly nodeId: string;
  readonly clusterId: string;
  /** Counts the actor's lives, from 1. */
  readonly incarnation: number;
  /** Assigned GPUs, in rank order. */
  readonly gpus: readonly { readonly index: number; readonly uuid: string }[];
  readonly placement: { readonly placementGroupId: string; readonly bundle: number } | null;
  /** Its place in a gang; null outside one. */
  readonly rank: number | null;
  readonly gangSize: number | null;
  /** Aborts when the actor is asked to end. */
  readonly signal: AbortSignal;
  /** The call it runs; null unless read before the method's first `await`: take it at the top of the method. */
  readonly call: CallContext | null;
  /** Says what the actor does and whom it waits for; shown by `slime status` and by whoever waits for this actor. */
  readonly phase: (text: string, options?: { readonly waitingFor?: string }) => void;
  /** Ports of this machine that nobody else is given and that are free now; they return with the process's end. @throws unsupported without a daemon. */
  readonly leasePorts: (count: number) => Promise<readonly number[]>;
  /** Ends the actor in order: calls that wait are finished first; it is not restarted. */
  readonly exit: () => void;
}

export interface CallContext {
  readonly method: string;
  /** Aborts on the caller's cancel, the deadline, and (unless the call may be repeated) the end of its connection. */
  readonly signal: AbortSignal;
  readonly deadlineMs: number | null;
  readonly traceId: string | null;
  /** The gang operation or retried call this is; null for a call without a key. */
  readonly opId: string | null;
}

let current: ActorContext | null = null;
let currentCall: RunningCall | null = null;
let hosted: ActorContext | null = null;

/** What `ctx().call` is made from. */
export interface RunningCall {
  readonly method: string;
  readonly deadlineMs: number | null;
  readonly traceId: string | null;
  readonly idempotencyKey: string | null;
  /** Made on first use: most methods never look. */
  readonly signal: () => AbortSignal;
}

/** The actor whose code runs. @throws unsupported outside an actor. */
export function ctx(): ActorContext {
  const context = current ?? hosted;
  if (context === null)
    throw new SlimeError("unsupported", "ctx() was read outside an actor: it exists in constructors and methods only", {
      what: "ctx()",
      why: "no actor runs in this process",
    });
  return currentCall === null ? context : { ...context, call: callContext(currentCall) };
}

function callContext(call: RunningCall): CallContext {
  const { method, deadlineMs, traceId, idempotencyKey } = call;
  return {
    method,
    deadlineMs,
    traceId,
    opId: idempotencyKey,
    get signal() {
      return call.signal();
    },
  };
}

/** Makes `ctx()` answer for the whole process: a host has one actor. */
export function setHostedContext(context: ActorContext | null): void {
  hosted = context;
}

/** Runs the synchronous part of a method (`call`) or of a constructor or hook (null) in its context. Allocates nothing. */
export function runInContext<T>(context: ActorContext, call: RunningCall | null, run: () => T): T {
  const before = current;
  const callBefore = currentCall;
  current = context;
  currentCall = call;
  try {
    return run();
  } finally {
    current = before;
    currentCall = callBefore;
  }
}

/** As `runInContext`, for a method on the hot path: no closure for the call. */
export function applyInContext(
  context: ActorContext,
  call: RunningCall,
  method: (...args: never[]) => unknown,
  instance: object,
  args: readonly unknown[],
): unknown {
  const before = current;
  const callBefore = currentCall;
  current = context;
  currentCall = call;
  try {
    return Reflect.apply(method, instance, args);
  } finally {
    current = before;
    currentCall = callBefore;
  }
}
