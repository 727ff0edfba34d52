import type { NodeView } from "./cluster-view.js";
import { gpuResource, type Resources, resourceUnit } from "./resources.js";

/** A demand for GPUs as the devices see it: n whole ones, or a share of a single one. */
export type GpuDemand =
  | { readonly kind: "none" }
  | { readonly kind: "whole"; readonly count: number }
  | { readonly kind: "share"; readonly amount: number }
  | { readonly kind: "impossible" };

/** More than one GPU must be a whole number of them; anything else could not be pinned. */
export function gpuDemand(resources: Resources): GpuDemand {
  const amount = resources[gpuResource] ?? 0;
  if (amount === 0) return { kind: "none" };
  if (amount % resourceUnit === 0) return { kind: "whole", count: amount / resourceUnit };
  return amount < resourceUnit ? { kind: "share", amount } : { kind: "impossible" };
}

/** One GPU's free amount while something is being fitted. */
export interface Device {
  readonly index: number;
  free: number;
}

/**
 * The devices a demand gets, lowest index first, or null when they have no room. Whole GPUs are distinct and wholly free; a share goes
 * to the fullest device with room (S2), so that whole ones stay whole.
 */
export function pickDevices(devices: readonly Device[], demand: GpuDemand): readonly Device[] | null {
  switch (demand.kind) {
    case "none":
      return [];
    case "impossible":
      return null;
    case "whole": {
      const free = devices.filter((device) => device.free === resourceUnit).slice(0, demand.count);
      return free.length === demand.count ? free : null;
    }
    case "share": {
      let best: Device | undefined;
      for (const device of devices) if (device.free >= demand.amount && (best === undefined || device.free < best.free)) best = device;
      return best === undefined ? null : [best];
    }
  }
}

/** A node's room while a plan is being made: take and give back. */
export class NodeRoom {
  readonly node: NodeView;
  readonly #free: Map<string, number>;
  readonly #devices: Device[];

  /** @param empty counts the node as if nobody held anything of it: what it could hold, not what it can. */
  constructor(node: NodeView, empty = false) {
    this.node = node;
    this.#free = new Map(Object.entries(empty ? node.total : node.free));
    this.#devices = node.gpus.map((gpu) => ({ index: gpu.index, free: empty ? resourceUnit : gpu.free })).sort((a, b) => a.index - b.index);
  }

  /** GPU indices when it fits (and then it is taken), null when not (and then nothing changed). */
  take(demand: Resources): readonly number[] | null {
    for (const [name, amount] of Object.entries(demand)) if (name !== gpuResource && (this.#free.get(name) ?? 0) < amount) return null;
    const gpus = gpuDemand(demand);
    const devices = pickDevices(this.#devices, gpus);
    if (devices === null) return null;
    for (const device of devices) device.free -= gpus.kind === "share" ? gpus.amount : resourceUnit;
    for (const [name, amount] of Object.entries(demand))
      if (name !== gpuResource) this.#free.set(name, (this.#free.get(name) ?? 0) - amount);
    return devices.map((device) => device.index);
  }

  /** Undoes a `take` that returned these indices. */
  giveBack(demand: Resources, indices: readonly number[]): void {
    const gpus = gpuDemand(demand);
    for (const device of this.#devices)
      if (indices.includes(device.index)) device.free += gpus.kind === "share" ? gpus.amount : resourceUnit;
    for (const [name, amount] of Object.entries(demand))
      if (name !== gpuResource) this.#free.set(name, (this.#free.get(name) ?? 0) + amount);
  }

  /** How many of these demands fit one after the other; changes nothing. */
  count(demands: readonly Resources[]): number {
    const taken: { readonly demand: Resources; readonly indices: readonly number[] }[] = [];
    for (const demand of demands) {
      const indices = this.take(demand);
      if (indices !== null) taken.push({ demand, indices });
    }
    for (const { demand, indices } of taken) this.giveBack(demand, indices);
    return taken.length;
  }
}

/** True when a node has GPUs that this demand does not ask for: kept for those who do, as long as others have room. */
export function wastesGpus(node: NodeView, demand: Resources): boolean {
  return node.gpus.length > 0 && (demand[gpuResource] ?? 0) === 0;
}
