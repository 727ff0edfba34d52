import type { Random } from "@slime/core";
import { at, type Candidate, type Policy } from "./policy.js";

/** Any, with equal chance. */
export function randomPolicy(random: Random): Policy {
  return {
    wants: "nothing",
    choose: <C extends Candidate>(able: readonly C[]) => at(able, Math.floor(random.unit() * able.length)),
    forget: () => {},
  };
}
