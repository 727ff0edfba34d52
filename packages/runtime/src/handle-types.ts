import type { DeathRecord } from "@slime/core";
import type { ObjectRef } from "./object-ref.js";

/** Any class whose instances can be actors. */
export type ActorClass = abstract new (...args: never[]) => object;

/** What a caller may say about one call. */
export interface CallOptions {
  /** From now until the result is here, waiting included; null: as long as the actor lives. Default: the actor's `callTimeoutMs`. */
  readonly timeoutMs?: number | null;
  /** Aborting rejects the call with `call.cancelled` and aborts `ctx().call.signal` in the actor. */
  readonly signal?: AbortSignal;
  /** How often the call is sent again when the actor dies or its connection breaks; the actor answers one call id once per life. Default 0. */
  readonly retries?: number;
  /** Runs the call in this group instead of the method's own. */
  readonly concurrencyGroup?: string;
  /** Calls of one key run once per life of the actor; a repetition gets the recorded result. Default: made up where `retries` asks for one. */
  readonly idempotencyKey?: string;
  readonly traceId?: string;
}

/** What a call's arguments may be: each a value or a reference to one, resolved before the call starts. */
export type RefArgs<Args extends readonly unknown[]> = { [I in keyof Args]: Args[I] | ObjectRef<Args[I]> };

/** One method of an actor, seen from afar. */
export interface RemoteMethod<Args extends readonly unknown[], Result> {
  /** Calls and fetches the result. */
  (...args: RefArgs<Args>): Promise<Result>;
  /** Calls; nothing is fetched until `get`. */
  readonly remote: (...args: RefArgs<Args>) => ObjectRef<Result>;
  /** Calls and wants no reply; an error is logged by the actor. Throws when it cannot even be queued. */
  readonly send: (...args: RefArgs<Args>) => void;
  readonly options: (options: CallOptions) => RemoteMethod<Args, Result>;
}

/** In place of a method whose parameters or result cannot cross a wire: not callable, and says why. */
export interface NotCallable<Why extends string> {
  readonly "this method cannot be called remotely": Why;
}

type Primitive = string | number | boolean | bigint | null | undefined | void;
/** Classes that a wire knows; a handle or a reference travels as itself. */
type Carried = ArrayBufferView | ObjectRef<unknown> | { readonly [handleBrand]: unknown };
declare const handleBrand: unique symbol;

/** True when the type surely holds something that cannot travel: functions, symbols, promises, maps, sets. Looks four levels deep. */
export type Unsendable<T, Depth extends 0[] = []> = unknown extends T
  ? false
  : Depth["length"] extends 4
    ? false
    : true extends UnsendableOne<T, Depth>
      ? true
      : false;
type UnsendableOne<T, Depth extends 0[]> = T extends Primitive | Carried
  ? false
  : T extends
        | ((...args: never[]) => unknown)
        | symbol
        | PromiseLike<unknown>
        | ReadonlyMap<unknown, unknown>
        | ReadonlySet<unknown>
        | (WeakKey & { readonly [Symbol.toStringTag]: "WeakMap" | "WeakSet" })
        | AbortSignal
    ? true
    : T extends readonly (infer Item)[]
      ? Unsendable<Item, [...Depth, 0]>
      : T extends object
        ? { [K in keyof T]-?: Unsendable<T[K], [...Depth, 0]> }[keyof T]
        : false;

type Remote<Method> = Method extends (...args: infer Args) => infer Result
  ? Unsendable<Args> extends true
    ? NotCallable<"a parameter holds what cannot be serialised">
    : Unsendable<Awaited<Result>> extends true
      ? NotCallable<"its result holds what cannot be serialised">
      : RemoteMethod<Args, Awaited<Result>>
  : never;

/** Names that are never remote methods: private by convention, or the host's own hooks. */
type HiddenName = `_${string}` | "onShutdown" | "then";

/** The methods of a class as a handle offers them: public ones with string names; fields, accessors and `_names` are absent. */
export type RemoteMethods<T> = {
  readonly [K in keyof T as K extends string
    ? K extends HiddenName
      ? never
      : T[K] extends (...args: never[]) => unknown
        ? K
        : never
    : never]: Remote<T[K]>;
};

/** States of an actor's life, in Ray's words (ray.md §1.17). */
export type ActorState = "DEPENDENCIES_UNREADY" | "PENDING_CREATION" | "ALIVE" | "RESTARTING" | "DEAD";

/** What this process knows of an actor. */
export interface ActorStatus {
  readonly actorId: string;
  readonly className: string;
  readonly name: string;
  readonly state: ActorState;
  readonly incarnation: number;
  readonly restarts: number;
  readonly nodeId: string | null;
  readonly pid: number | null;
  /** Why it is not placed yet. */
  readonly waiting: readonly string[];
  /** How its last life ended; null before that. */
  readonly death: DeathRecord | null;
}

export interface WaitOptions {
  readonly timeoutMs?: number | null;
  readonly signal?: AbortSignal;
}

/** What every handle can do besides the class's own methods. A class must not have methods of these names. */
export interface HandleControls {
  readonly actorId: string;
  /** Resolves when the actor is ALIVE. @throws actor.creation (the constructor's error is the cause), actor.died, placement.infeasible. */
  readonly ready: (options?: WaitOptions) => Promise<void>;
  readonly state: () => ActorStatus;
  /** Called at every change of `state()`, until the returned function is called. */
  readonly onStateChange: (listener: (status: ActorStatus) => void) => () => void;
  /** Ends the actor for good: abort, `onShutdown`, SIGTERM, after `graceMs` SIGKILL. Resolves when it is DEAD. */
  readonly kill: (options?: { readonly graceMs?: number; readonly timeoutMs?: number | null }) => Promise<void>;
}

/** An actor, held from anywhere in its job: callable, and passed as an argument like any value. */
export type ActorHandle<T> = HandleControls & { readonly [handleBrand]: T } & RemoteMethods<Omit<T, keyof HandleControls>>;
