import type { Random } from "@slime/core";
import { draws } from "./draws.js";
import { isOverfull } from "./overfull.js";
import { at, type Candidate, type Policy } from "./policy.js";

/** Any that is not overfull (L6), with equal chance. */
export function randomPolicy(random: Random): Policy {
  const draw = draws(random);
  return {
    wants: "nothing",
    choose<C extends Candidate>(able: readonly C[]): C {
      const one = at(able, draw(able.length));
      if (!isOverfull(able, one)) return one;
      const others = able.filter((other) => !isOverfull(able, other));
      return at(others, draw(others.length));
    },
    forget: () => {},
  };
}
