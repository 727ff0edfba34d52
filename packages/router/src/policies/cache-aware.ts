import { leastInFlight } from "./least-in-flight.js";
import { at, type Candidate, noHint, type Policy, type RouteHint } from "./policy.js";
import { PrefixIndex, prefixHashes } from "./prefix-index.js";

export interface CacheAwareOptions {
  /** The busiest engine may hold so many requests more than the idlest one … */
  readonly balanceAbsolute: number;
  /** … or so many times as many, before load decides and not the cache. */
  readonly balanceRelative: number;
  /** Part of a prompt that must be known at an engine for it to be sent there for that. */
  readonly matchMin: number;
  /** Nodes kept per engine, about 128 bytes of prompt each. */
  readonly nodesMax: number;
}

/** The thresholds are slime's; sglang_router's own are 64 and 1.5. */
export const defaultCacheAware: CacheAwareOptions = { balanceAbsolute: 10, balanceRelative: 1.2, matchMin: 0.3, nodesMax: 1 << 16 };

/**
 * The engine that has most of the prompt in its cache, as far as can be told from what was sent there.
 * L4: when the busiest able engine holds more than `balanceAbsolute` requests above the idlest and more than `balanceRelative` times as many,
 * the idlest is taken. L5: equal prompts go to one engine while loads are balanced. A prompt that nobody knows goes to the least busy.
 */
export function cacheAware(options: CacheAwareOptions = defaultCacheAware): Policy {
  const least = leastInFlight();
  const indexes = new Map<string, PrefixIndex>();
  const remember = (id: string, hashes: readonly number[]) => {
    let index = indexes.get(id);
    if (index === undefined) indexes.set(id, (index = new PrefixIndex(options.nodesMax)));
    index.add(hashes);
  };
  return {
    wants: "prompt",
    choose<C extends Candidate>(able: readonly C[], { prompt }: RouteHint): C {
      if (prompt === null || prompt.length === 0) return least.choose(able, noHint);
      const hashes = prefixHashes(prompt);
      const known = isBalanced(able, options) ? bestMatch(able, indexes, hashes) : null;
      const chosen = known !== null && known.matched > options.matchMin * hashes.length ? known.worker : least.choose(able, noHint);
      remember(chosen.id, hashes);
      return chosen;
    },
    forget: (id) => void indexes.delete(id),
  };
}

function isBalanced(able: readonly Candidate[], { balanceAbsolute, balanceRelative }: CacheAwareOptions): boolean {
  let most = 0;
  let fewest = Number.POSITIVE_INFINITY;
  for (const { inFlight } of able) {
    most = Math.max(most, inFlight);
    fewest = Math.min(fewest, inFlight);
  }
  return most - fewest <= balanceAbsolute || most <= fewest * balanceRelative;
}

/** The longest match, of equals the less busy engine. */
function bestMatch<C extends Candidate>(
  able: readonly C[],
  indexes: ReadonlyMap<string, PrefixIndex>,
  hashes: readonly number[],
): { readonly worker: C; readonly matched: number } {
  let best = { worker: at(able, 0), matched: -1 };
  for (const worker of able) {
    const matched = indexes.get(worker.id)?.match(hashes) ?? 0;
    if (matched > best.matched || (matched === best.matched && worker.inFlight < best.worker.inFlight)) best = { worker, matched };
  }
  return best;
}
