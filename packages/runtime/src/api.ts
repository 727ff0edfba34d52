import { SlimeError } from "@slime/core";
import { jobOutputKey } from "@slime/rpc";
import { prepareResult } from "./call-args.js";
import { cancelled } from "./channel-call.js";
import { type ActorOptions, type AnyActorOptions, createActor } from "./create-actor.js";
import { currentRuntime } from "./current.js";
import type { ActorType } from "./define-actor.js";
import { createGang, type Gang, type GangOptions } from "./gang.js";
import type { ActorClass, ActorHandle, HandleControls, WaitOptions } from "./handle-types.js";
import { markFreed, ObjectRef, onSettled, refState } from "./object-ref.js";
import { createPlacementGroup, type PlacementGroup, type PlacementGroupOptions } from "./placement-group.js";
import type { NodeView } from "./ports.js";
import { StoredValue, snapshot } from "./values.js";
import { waitUntil } from "./wait-until.js";

/** Creates an actor: a handle at once; calls made before it is ALIVE wait. @throws config.invalid for options that make no sense. */
export function actor<C extends ActorClass>(
  actorClass: C | ActorType<C>,
  ...[options]: [] extends ConstructorParameters<C> ? [options?: ActorOptions<C>] : [options: ActorOptions<C>]
): ActorHandle<InstanceType<C>> {
  return createActor<C>(currentRuntime(), actorClass, (options ?? {}) as AnyActorOptions);
}

/** Creates n actors that act together. */
export function gang<C extends ActorClass>(actorClass: C | ActorType<C>, options: GangOptions<C>): Gang<InstanceType<C>> {
  return createGang<C>(currentRuntime(), actorClass, options);
}

/** Asks for bundles that are reserved together. */
export function placementGroup(options: PlacementGroupOptions): PlacementGroup {
  return createPlacementGroup(currentRuntime(), options);
}

type Values<Refs extends readonly ObjectRef<unknown>[]> = { -readonly [I in keyof Refs]: Refs[I] extends ObjectRef<infer T> ? T : never };

/**
 * Fetches what references stand for; a list keeps its order and throws the first error in that order.
 * Says every 30 s whom it waits for. @throws the call's own error, object.lost, call.deadline, call.cancelled.
 */
export function get<T>(ref: ObjectRef<T>, options?: WaitOptions): Promise<T>;
/** A list of references, each of its own type. */
export function get<const Refs extends readonly ObjectRef<unknown>[]>(refs: Refs, options?: WaitOptions): Promise<Values<Refs>>;
/** Both forms. */
export async function get(wanted: ObjectRef<unknown> | readonly ObjectRef<unknown>[], options: WaitOptions = {}): Promise<unknown> {
  const { parts, fetch } = currentRuntime();
  const refs = wanted instanceof ObjectRef ? [wanted] : wanted;
  const waiting = () => refs.filter((ref) => refState(ref).kind === "pending");
  await waitUntil(parts, {
    what: () => `${waiting().length} of ${refs.length} values, first ${describe(waiting()[0])}`,
    check: () => {
      // The first error in order is known once everything before it is settled.
      for (const ref of refs) {
        const state = refState(ref);
        if (state.kind === "pending") return null;
        if (state.kind === "failed") throw state.error;
      }
      return { value: null };
    },
    listen: (changed) => listenAll(waiting(), changed),
    inquire: async () => {
      const first = waiting()[0];
      const state = first === undefined ? null : refState(first);
      return state?.kind === "pending" ? { ...state.source.describe(), ...(await state.source.inquire?.()) } : {};
    },
    ...options,
  });
  const values = await Promise.all(refs.map(fetch));
  return wanted instanceof ObjectRef ? values[0] : values;
}

export interface WaitForOptions extends WaitOptions {
  /** How many must be ready. Default 1. */
  readonly numReady?: number;
}

/** Waits until some references are settled (an error counts as ready) or the time is up, which is no error. Order is kept. */
export async function wait<T>(
  refs: readonly ObjectRef<T>[],
  { numReady = 1, timeoutMs = null, signal }: WaitForOptions = {},
): Promise<{ readonly ready: ObjectRef<T>[]; readonly notReady: ObjectRef<T>[] }> {
  const { clock } = currentRuntime().parts;
  if (new Set(refs).size !== refs.length) throw invalid("wait: the references must be distinct");
  if (!Number.isInteger(numReady) || numReady < 0 || numReady > refs.length)
    throw invalid(`wait: numReady must be between 0 and ${refs.length}, got ${numReady}`);
  const isReady = (ref: ObjectRef<T>) => refState(ref).kind !== "pending";
  const enough = () => refs.filter(isReady).length >= numReady;
  const undo: (() => void)[] = [];
  try {
    await new Promise<void>((resolve, reject) => {
      if (enough()) return resolve();
      undo.push(
        listenAll(
          refs.filter((ref) => !isReady(ref)),
          () => void (enough() && resolve()),
        ),
      );
      if (timeoutMs !== null) {
        const timer = clock.after(timeoutMs, resolve);
        undo.push(() => timer.cancel());
      }
      const onAbort = () => reject(cancelled("wait", signal?.reason));
      if (signal?.aborted) return onAbort();
      signal?.addEventListener("abort", onAbort, { once: true });
      undo.push(() => signal?.removeEventListener("abort", onAbort));
    });
  } finally {
    for (const each of undo) each();
  }
  return { ready: refs.filter(isReady), notReady: refs.filter((ref) => !isReady(ref)) };
}

/**
 * Stores a value and stands a reference for it; small values travel inside the reference. Large arrays must not be changed until
 * the promise resolves. It ends with the job, or by `free`.
 */
export async function put<T>(value: T extends ObjectRef<unknown> ? never : T): Promise<ObjectRef<T>> {
  const runtime = currentRuntime();
  if (value instanceof ObjectRef) throw invalid("put: a reference is passed on as it is, not put again");
  const kept = await prepareResult(value, runtime.store);
  return new ObjectRef<T>(
    runtime.nextId("obj"),
    kept instanceof StoredValue ? { kind: "stored", object: kept.object } : { kind: "value", value: snapshot(kept) },
  );
}

/** Frees stored values now instead of at the end of the job; whoever reads them later gets `object.lost`. Pending references are left alone. */
export async function free(refs: ObjectRef<unknown> | readonly ObjectRef<unknown>[]): Promise<void> {
  const { store } = currentRuntime();
  const settledRefs = (refs instanceof ObjectRef ? [refs] : refs).filter((ref) => refState(ref).kind !== "pending");
  await store.free(
    settledRefs.flatMap((ref) => {
      const state = refState(ref);
      return state.kind === "stored" ? [state.object] : [];
    }),
  );
  for (const ref of settledRefs) markFreed(ref);
}

/** The cluster's machines. */
export async function nodes(options?: WaitOptions): Promise<readonly NodeView[]> {
  return (await currentRuntime().control()).nodes(options);
}

/** Ends an actor for good: abort, `onShutdown`, SIGTERM, after `graceMs` SIGKILL. Resolves when it is DEAD. */
export function kill(handle: HandleControls, options: { readonly graceMs?: number } = {}): Promise<void> {
  return handle.kill(options);
}

/** Small values by name, kept by the head, durable: addresses and flags, not data. */
export const kv = {
  put: async (
    key: string,
    value: string | Uint8Array,
    options: WaitOptions & { readonly ifAbsent?: boolean } = {},
  ): Promise<{ readonly found: boolean }> =>
    (await currentRuntime().control()).kvPut(
      { key, value: typeof value === "string" ? Buffer.from(value) : value, ifAbsent: options.ifAbsent ?? false },
      options,
    ),
  get: async (key: string, options?: WaitOptions): Promise<Uint8Array | null> => (await currentRuntime().control()).kvGet(key, options),
  delete: async (key: string, options?: WaitOptions): Promise<void> => (await currentRuntime().control()).kvDelete(key, options),
  list: async (prefix: string, options?: WaitOptions): Promise<readonly string[]> =>
    (await currentRuntime().control()).kvList(prefix, options),
} as const;

/** A driver says what it does and whom it waits for (an actor uses `ctx().phase`). */
export function reportPhase(phase: string, options: { readonly waitingFor?: string } = {}): void {
  const { control, parts } = currentRuntime();
  control().then(
    (head) => head.reportPhase(phase, options.waitingFor ?? ""),
    (error: unknown) => parts.log.warn("runtime.no_head", { error: String(error) }),
  );
}

/** A driver says where its results lie; the job's state shows it (`slime job status`). */
export async function reportOutput(directory: string, options: WaitOptions = {}): Promise<void> {
  await kv.put(jobOutputKey(currentRuntime().parts.jobId), directory, options);
}

function listenAll(refs: readonly ObjectRef<unknown>[], changed: () => void): () => void {
  const undo = refs.map((ref) => onSettled(ref, changed));
  return () => {
    for (const each of undo) each();
  };
}

function describe(ref: ObjectRef<unknown> | undefined): string {
  const state = ref === undefined ? null : refState(ref);
  return state?.kind === "pending" ? Object.values(state.source.describe()).flat().join(" ") : String(ref);
}

function invalid(issue: string): SlimeError {
  return new SlimeError("config.invalid", issue, { issues: [issue] });
}
