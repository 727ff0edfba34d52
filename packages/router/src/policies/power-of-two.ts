import type { Random } from "@slime/core";
import { at, type Candidate, type Policy } from "./policy.js";

/** The less busy of two engines drawn at random: nearly as even as the least of all, and never the busiest. */
export function powerOfTwo(random: Random): Policy {
  return {
    wants: "nothing",
    choose<C extends Candidate>(able: readonly C[]): C {
      if (able.length === 1) return at(able, 0);
      const first = Math.floor(random.unit() * able.length);
      const step = 1 + Math.floor(random.unit() * (able.length - 1));
      const [one, other] = [at(able, first), at(able, (first + step) % able.length)];
      return other.inFlight < one.inFlight ? other : one;
    },
    forget: () => {},
  };
}
