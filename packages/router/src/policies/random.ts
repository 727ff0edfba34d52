import type { Random } from "@slime/core";
import { draws } from "./draws.js";
import { at, type Candidate, type Policy } from "./policy.js";

/** Any, with equal chance. */
export function randomPolicy(random: Random): Policy {
  const draw = draws(random);
  return {
    wants: "nothing",
    choose: <C extends Candidate>(able: readonly C[]) => at(able, draw(able.length)),
    forget: () => {},
  };
}
