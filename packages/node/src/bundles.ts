/**
 * Reservations of placement groups on this node: prepared (they lapse by themselves), then committed, then released.
 * Pure. Invariants: B1 a repeated step answers as the first did; B2 a step of an older generation changes nothing;
 * B3 a GPU is never promised beyond its whole, whether to bundles or to actors outside of them (checked here although
 * the head planned it: a stale head must not double-book).
 */
import { SlimeError } from "@slime/core";
import type { PlannedBundle } from "@slime/rpc/control";

export interface Reservation {
  readonly generation: number;
  readonly bundles: readonly PlannedBundle[];
  readonly committed: boolean;
}

/** By placement group id. */
export type Bundles = ReadonlyMap<string, Reservation>;

/** GPU shares that something holds: by GPU index, in 1/10,000. */
export type GpuShares = ReadonlyMap<number, number>;

/** Shares of one GPU. */
export const wholeGpu = 10_000;

/** What an amount of GPUs means for each of the planned ones: a fraction sits on one, whole ones take each fully. */
export function gpuShares(units: number, indices: readonly number[]): GpuShares {
  return new Map(indices.map((index) => [index, Math.floor(units / indices.length)]));
}

/** Adds up shares by GPU. */
export function sumShares(parts: Iterable<GpuShares>): Map<number, number> {
  const sum = new Map<number, number>();
  for (const part of parts) for (const [index, units] of part) sum.set(index, (sum.get(index) ?? 0) + units);
  return sum;
}

function sharesOf(reservation: Reservation): Map<number, number> {
  return sumShares(reservation.bundles.map((bundle) => gpuShares(bundle.resources["GPU"] ?? 0, bundle.gpuIndices)));
}

/** What all reservations hold, that of `except` left out. */
export function reservedShares(bundles: Bundles, except = ""): Map<number, number> {
  return sumShares([...bundles].filter(([id]) => id !== except).map(([, reservation]) => sharesOf(reservation)));
}

/** @throws SlimeError `conflict` that names the GPU (B3) or `not_found` for one this node lacks. */
export function checkShares(wanted: GpuShares, taken: GpuShares, gpuCount: number, who: string): void {
  for (const [index, units] of wanted) {
    if (index >= gpuCount)
      throw new SlimeError("not_found", `${who} is planned onto GPU ${index}; this node has ${gpuCount}`, {
        kind: "gpu",
        id: String(index),
      });
    const held = taken.get(index) ?? 0;
    if (held + units > wholeGpu)
      throw new SlimeError("conflict", `${who} wants ${units / wholeGpu} of GPU ${index}, of which ${held / wholeGpu} is held (B3)`, {
        kind: "gpu",
        id: String(index),
      });
  }
}

export interface BundleStep {
  readonly bundles: Bundles;
  readonly failure: SlimeError | null;
}

const done = (bundles: Bundles): BundleStep => ({ bundles, failure: null });

/**
 * Reserves bundles for a while.
 * @param outside shares that actors outside of any group hold.
 */
export function prepareBundles(
  bundles: Bundles,
  wanted: { readonly id: string; readonly generation: number; readonly bundles: readonly PlannedBundle[] },
  outside: GpuShares,
  gpuCount: number,
): BundleStep {
  const current = bundles.get(wanted.id);
  if (current !== undefined && current.generation > wanted.generation)
    return stale(bundles, wanted.id, wanted.generation, current.generation);
  if (current?.generation === wanted.generation) return done(bundles);
  const reservation: Reservation = { generation: wanted.generation, bundles: wanted.bundles, committed: false };
  try {
    checkShares(sharesOf(reservation), sumShares([reservedShares(bundles, wanted.id), outside]), gpuCount, `placement group ${wanted.id}`);
  } catch (error) {
    if (SlimeError.isAny(error)) return { bundles, failure: error };
    throw error;
  }
  return done(new Map(bundles).set(wanted.id, reservation));
}

/** A prepared reservation becomes one that stays until it is released. */
export function commitBundles(bundles: Bundles, id: string, generation: number): BundleStep {
  const current = bundles.get(id);
  if (current === undefined || current.generation < generation) {
    return {
      bundles,
      failure: new SlimeError("not_found", `nothing is prepared here for ${id} generation ${generation}: its reservation lapsed`, {
        kind: "placement group",
        id,
      }),
    };
  }
  if (current.generation > generation) return stale(bundles, id, generation, current.generation);
  return done(new Map(bundles).set(id, { ...current, committed: true }));
}

/** Gives a reservation back; one that is not there is given back already. */
export function releaseBundles(bundles: Bundles, id: string, generation: number): BundleStep {
  const current = bundles.get(id);
  if (current === undefined) return done(bundles);
  if (current.generation > generation) return stale(bundles, id, generation, current.generation);
  return done(without(bundles, id));
}

/** A prepared reservation's time is over; a committed one stays. */
export function lapseBundles(bundles: Bundles, id: string, generation: number): Bundles {
  const current = bundles.get(id);
  return current === undefined || current.committed || current.generation !== generation ? bundles : without(bundles, id);
}

function without(bundles: Bundles, id: string): Bundles {
  const left = new Map(bundles);
  left.delete(id);
  return left;
}

function stale(bundles: Bundles, id: string, generation: number, current: number): BundleStep {
  return {
    bundles,
    failure: new SlimeError("conflict", `${id} is at generation ${current} here; ${generation} is stale (B2)`, {
      kind: "placement group",
      id,
    }),
  };
}
