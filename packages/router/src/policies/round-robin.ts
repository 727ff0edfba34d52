import { at, type Candidate, type Policy } from "./policy.js";

/** In turn. While the same engines are able, any two of them were chosen equally often, give or take one. */
export function roundRobin(): Policy {
  let turn = 0;
  return {
    wants: "nothing",
    choose: <C extends Candidate>(able: readonly C[]) => at(able, turn++ % able.length),
    forget: () => {},
  };
}
