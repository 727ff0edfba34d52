import type { Random } from "@slime/core";
import { draws } from "./draws.js";
import { at, type Candidate, type Policy } from "./policy.js";

/** The less busy of two engines drawn at random: nearly as even as the least of all, and never the busiest. */
export function powerOfTwo(random: Random): Policy {
  const draw = draws(random);
  return {
    wants: "nothing",
    choose<C extends Candidate>(able: readonly C[]): C {
      if (able.length === 1) return at(able, 0);
      const first = draw(able.length);
      const step = 1 + draw(able.length - 1);
      const [one, other] = [at(able, first), at(able, (first + step) % able.length)];
      return other.inFlight < one.inFlight ? other : one;
    },
    forget: () => {},
  };
}
