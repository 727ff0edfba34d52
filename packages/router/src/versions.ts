/** An engine names its version as the push did; a stock server that had none yet says "default", which is version 0. */
export function isVersion(found: string | null, version: number): boolean {
  return found === String(version) || (version === 0 && found === "default");
}

/** The newest version in both lists, null (none vouched for) being the oldest; undefined when they share none. */
export function newestShared(some: readonly (number | null)[], others: readonly (number | null)[]): number | null | undefined {
  let best: number | null | undefined;
  for (const version of some) {
    const isBetter = best === undefined || (version ?? -1) > (best ?? -1);
    if (isBetter && others.includes(version)) best = version;
  }
  return best;
}
