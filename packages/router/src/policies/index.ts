import type { RouterPolicy } from "@slime/backend";
import type { Random } from "@slime/core";
import { type CacheAwareOptions, cacheAware } from "./cache-aware.js";
import { consistentHashing } from "./consistent-hashing.js";
import { leastInFlight } from "./least-in-flight.js";
import type { Policy } from "./policy.js";
import { powerOfTwo } from "./power-of-two.js";
import { randomPolicy } from "./random.js";
import { roundRobin } from "./round-robin.js";

/** A fresh policy by its name. */
export function makePolicy(name: RouterPolicy, random: Random, cache: CacheAwareOptions): Policy {
  switch (name) {
    case "round_robin":
      return roundRobin();
    case "random":
      return randomPolicy(random);
    case "least_in_flight":
      return leastInFlight();
    case "power_of_two":
      return powerOfTwo(random);
    case "consistent_hashing":
      return consistentHashing();
    case "cache_aware":
      return cacheAware(cache);
  }
}
