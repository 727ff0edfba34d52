import { SlimeError } from "@slime/core";

/** Leases tried; each begins elsewhere. */
const triesMax = 8;

/** Leases ports until `count` of one lease follow each other. @returns the first of them. @throws `port.taken`. */
export async function leasePortsInARow(lease: (count: number) => Promise<readonly number[]>, count: number): Promise<number> {
  for (let tries = 0; tries < triesMax; tries++) {
    const first = firstInARow(await lease(count), count);
    if (first !== null) return first;
  }
  throw new SlimeError("port.taken", `no ${count} free ports in a row: end what else listens on this machine`, { port: 0, pid: null });
}

/** Where `count` ports follow each other; null: nowhere. */
export function firstInARow(ports: readonly number[], count: number): number | null {
  const sorted = [...ports].sort((left, right) => left - right);
  for (let at = 0; at + count <= sorted.length; at++) {
    const [first, last] = [sorted[at] ?? 0, sorted[at + count - 1] ?? 0];
    if (last - first === count - 1) return first;
  }
  return null;
}
