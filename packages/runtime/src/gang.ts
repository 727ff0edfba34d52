import { OpId, SlimeError } from "@slime/core";
import { type ActorPlacementOptions, type AnyActorOptions, createActor } from "./create-actor.js";
import type { ActorType } from "./define-actor.js";
import type { ActorClass, ActorHandle, CallOptions, RefArgs, RemoteMethod, RemoteMethods, WaitOptions } from "./handle-types.js";
import { createPlacementGroup, type PlacementGroup } from "./placement-group.js";
import type { PlacementStrategy } from "./ports.js";
import type { Resources } from "./resources.js";
import type { Runtime } from "./runtime.js";

/** How one operation of a gang is called. */
export interface GangCallOptions extends Pick<CallOptions, "timeoutMs" | "signal" | "retries" | "concurrencyGroup" | "traceId"> {
  /** A repeated id returns the recorded results instead of running again. Default: made up. */
  readonly opId?: string;
}

/** One method of a gang: one call goes to every rank, results come by rank. */
export interface GangMethod<Args extends readonly unknown[], Result> {
  /** The same arguments for every rank. */
  (...args: RefArgs<Args>): Promise<readonly Result[]>;
  /** Arguments by rank. */
  readonly each: (argsOf: (rank: number) => RefArgs<Args>) => Promise<readonly Result[]>;
  readonly options: (options: GangCallOptions) => GangMethod<Args, Result>;
}

type GangMethods<T> = {
  readonly [K in keyof RemoteMethods<T>]: RemoteMethods<T>[K] extends RemoteMethod<infer Args, infer Result>
    ? GangMethod<Args, Result>
    : RemoteMethods<T>[K];
};

/** n actors that act together (architecture.md §3). */
export interface Gang<T> {
  readonly size: number;
  readonly ranks: readonly ActorHandle<T>[];
  readonly placementGroup: PlacementGroup | null;
  /** `trainers.all.trainStep(batch)`: the method on every rank. */
  readonly all: GangMethods<T>;
  /** Every rank is ALIVE. @throws what the first rank that failed failed with. */
  readonly ready: (options?: WaitOptions) => Promise<void>;
  /** Ends every rank, and the placement group where the gang made it. */
  readonly kill: (options?: { readonly graceMs?: number }) => Promise<void>;
}

export interface GangOptions<C extends ActorClass> extends Omit<ActorPlacementOptions, "bundle"> {
  /** Ranks. Default: the group's size, or that of `bundles`. */
  readonly size?: number;
  /** Makes a placement group of its own; rank r takes the r-th placed bundle, in rank order. */
  readonly bundles?: readonly Resources[];
  readonly strategy?: PlacementStrategy;
  /** Rank 0's row in a given group's table. Default 0. */
  readonly firstRow?: number;
  readonly argsOf?: (rank: number) => RefArgs<ConstructorParameters<C>>;
}

/** Creates a gang: rank r's process has SLIME_GANG_RANK and SLIME_GANG_SIZE, and `ctx().rank`. */
export function createGang<C extends ActorClass>(
  runtime: Runtime,
  actorClass: C | ActorType<C>,
  options: GangOptions<C>,
): Gang<InstanceType<C>> {
  const { size: asked, bundles, strategy, firstRow = 0, argsOf, placementGroup: given, name, env, ...rest } = options;
  const own =
    bundles === undefined
      ? null
      : createPlacementGroup(runtime, {
          bundles,
          ...(strategy === undefined ? {} : { strategy }),
          ...(name === undefined ? {} : { name }),
        });
  const group = given ?? own;
  const size = asked ?? (group === null ? undefined : group.size - firstRow);
  if (size === undefined || size < 1 || (group !== null && firstRow + size > group.size)) {
    const issue = `a gang of ${size ?? "no"} ranks: give size, bundles or a placementGroup with at least ${firstRow + (size ?? 1)} bundles${group === null ? "" : `, it has ${group.size}`}`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  const table = group?.ready();
  table?.catch(() => {});
  const rows = [...Array(size).keys()];
  const ranks = rows.map((rank) => {
    const place: AnyActorOptions =
      group === null || table === undefined
        ? {}
        : { placementGroup: group, bundleLater: table.then((placed) => placed[firstRow + rank]?.bundle ?? -1) };
    return createActor<C>(runtime, actorClass, {
      ...rest,
      ...place,
      ...(name === undefined ? {} : { name: `${name}-${rank}` }),
      env: { ...env, SLIME_GANG_RANK: String(rank), SLIME_GANG_SIZE: String(size) },
      args: (argsOf?.(rank) ?? []) as readonly unknown[],
    });
  });
  const gangOf = { ranks, newOpId: () => OpId.create(runtime.parts.random) };
  return {
    size,
    ranks,
    placementGroup: group,
    all: gangMethods(gangOf),
    ready: async (wait) => void (await Promise.all(ranks.map((rank) => rank.ready(wait)))),
    async kill(how) {
      await Promise.all(ranks.map((rank) => rank.kill(how)));
      await own?.remove();
    },
  };
}

interface GangParts {
  readonly ranks: readonly object[];
  readonly newOpId: () => string;
}

function gangMethods<T>(parts: GangParts): GangMethods<T> {
  const make = (name: string, options: GangCallOptions) =>
    Object.assign((...args: unknown[]) => runOnGang(parts, name, () => args, options), {
      each: (argsOf: (rank: number) => readonly unknown[]) => runOnGang(parts, name, argsOf, options),
      options: (more: GangCallOptions) => make(name, { ...options, ...more }),
    });
  const proxy = new Proxy(
    {},
    { get: (_, name) => (typeof name === "symbol" || name === "then" || name.startsWith("_") ? undefined : make(name, {})) },
  );
  // The proxy has every method; its type is the class's.
  return proxy as GangMethods<T>;
}

type Callable = { options: (options: CallOptions) => (...args: readonly unknown[]) => Promise<unknown> };

/**
 * One operation on every rank. G1: all ranks get it under one op id. G2: it succeeds only when every rank does. G3: the first
 * rank that fails aborts the others; the error names every rank that failed of itself. G4: results lie by rank.
 */
export async function runOnGang(
  parts: GangParts,
  method: string,
  argsOf: (rank: number) => readonly unknown[],
  options: GangCallOptions,
): Promise<readonly unknown[]> {
  const { opId = parts.newOpId(), signal, ...rest } = options;
  const others = new AbortController();
  const failures = new Map<number, unknown>();
  const results = await Promise.all(
    parts.ranks.map(async (rankHandle, rank) => {
      try {
        const remote = (rankHandle as Readonly<Record<string, Callable>>)[method] as Callable;
        const both = signal === undefined ? others.signal : AbortSignal.any([signal, others.signal]);
        return await remote.options({ ...rest, signal: both, idempotencyKey: opId })(...argsOf(rank));
      } catch (error) {
        if (!others.signal.aborted || !isOurAbort(error, others.signal)) failures.set(rank, error);
        others.abort(
          new SlimeError("call.cancelled", `${method} (${opId}) failed on rank ${rank}, so the other ranks stop`, {
            what: `${method} (${opId})`,
          }),
        );
        return undefined;
      }
    }),
  );
  if (failures.size === 0) return results;
  if (signal?.aborted && [...failures.values()].every((error) => SlimeError.is(error, "call.cancelled") || error === signal.reason))
    throw [...failures.values()][0];
  const failed = [...failures].sort(([a], [b]) => a - b);
  const said = failed.map(([rank, error]) => `rank ${rank}: ${error instanceof Error ? error.message : String(error)}`);
  throw new SlimeError(
    "gang.rank_failed",
    `${method} (${opId}) failed on ${failed.length} of ${parts.ranks.length} ranks: ${said.join("; ")}`,
    { op: opId, failedRanks: failed.map(([rank]) => rank) },
    { cause: failed[0]?.[1] },
  );
}

function isOurAbort(error: unknown, signal: AbortSignal): boolean {
  return error === signal.reason;
}
