/**
 * Amounts of resources: whole numbers of 1/10,000, so that sums of fractions are exact. `{ CPU: 10_000 }` is one CPU.
 * S1: no amount is negative and none is fractional.
 */
export type Resources = Readonly<Record<string, number>>;

/** One whole CPU, GPU or custom resource. Memory counts MiB in the same units. */
export const resourceUnit = 10_000;

/** The resource whose instances are told apart: every share of it lies on named devices. */
export const gpuResource = "GPU";

/** Whole-number amounts of 1/10,000 from what people write: `{ GPU: 0.4 }`. @throws RangeError for what is negative or not finite. */
export function resourcesFrom(amounts: Readonly<Record<string, number>>): Resources {
  const out: Record<string, number> = {};
  for (const [name, amount] of Object.entries(amounts)) {
    if (!Number.isFinite(amount) || amount < 0) throw new RangeError(`resource ${name} must be a number of 0 or more, got ${amount}`);
    const units = Math.round(amount * resourceUnit);
    if (units > 0) out[name] = units;
  }
  return out;
}

/** The sum of several amounts, each name once. */
export function sumResources(all: Iterable<Resources>): Record<string, number> {
  const out: Record<string, number> = {};
  for (const resources of all) for (const [name, amount] of Object.entries(resources)) out[name] = (out[name] ?? 0) + amount;
  return out;
}

/** For people: `GPU 0.4, CPU 1`; `nothing` when empty. */
export function formatResources(resources: Resources): string {
  const parts = Object.entries(resources)
    .filter(([, amount]) => amount > 0)
    .sort(([a], [b]) => rankOfName(a) - rankOfName(b) || (a < b ? -1 : 1))
    .map(([name, amount]) => `${name} ${formatAmount(amount)}`);
  return parts.length === 0 ? "nothing" : parts.join(", ");
}

/** `4000` → `0.4`. */
export function formatAmount(amount: number): string {
  return String(amount / resourceUnit);
}

const rankOfName = (name: string): number => (name === gpuResource ? 0 : name === "CPU" ? 1 : 2);
