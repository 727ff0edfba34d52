import { leastInFlight } from "./least-in-flight.js";
import { at, type Candidate, type Policy, type RouteHint } from "./policy.js";

/**
 * The engine whose hash together with the key is highest (rendezvous hashing). L3: a key keeps its engine while that engine is able;
 * when an engine goes only its keys move, and when one comes it takes keys from all alike. Hashes go by url, so an engine that restarts
 * on its address finds its keys again. A request without a key goes to the least busy engine.
 */
export function consistentHashing(): Policy {
  const keyless = leastInFlight();
  const hashes = new Map<string, number>();
  const hashOf = (worker: Candidate): number => {
    let hash = hashes.get(worker.id);
    if (hash === undefined) hashes.set(worker.id, (hash = hashText(worker.url)));
    return hash;
  };
  return {
    wants: "key",
    choose<C extends Candidate>(able: readonly C[], hint: RouteHint): C {
      if (hint.key === null) return keyless.choose(able, hint);
      const key = hashText(hint.key);
      let best = at(able, 0);
      let bestScore = mix(key ^ hashOf(best));
      for (const worker of able) {
        const score = mix(key ^ hashOf(worker));
        if (score > bestScore || (score === bestScore && worker.url < best.url)) {
          best = worker;
          bestScore = score;
        }
      }
      return best;
    },
    forget: (id) => void hashes.delete(id),
  };
}

/** FNV-1a over UTF-16 code units, finished so that near texts differ in every bit. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return mix(hash);
}

/** MurmurHash3's 32-bit finaliser: a bijection that scatters. */
function mix(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
