import { at, type Candidate, type Policy } from "./policy.js";

/**
 * The engine with the fewest requests in flight, equals in turn so that idle engines share alike. A hung engine's share stops growing: what
 * it holds is never fewer than what the others hold.
 */
export function leastInFlight(): Policy {
  let turn = 0;
  return {
    wants: "nothing",
    choose<C extends Candidate>(able: readonly C[]): C {
      const start = turn++ % able.length;
      let best = at(able, start);
      for (let i = 1; i < able.length && best.inFlight > 0; i++) {
        const other = at(able, (start + i) % able.length);
        if (other.inFlight < best.inFlight) best = other;
      }
      return best;
    },
    forget: () => {},
  };
}
