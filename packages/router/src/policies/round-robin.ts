import { isOverfull } from "./overfull.js";
import { at, type Candidate, type Policy } from "./policy.js";

/** In turn, passing over an overfull engine (L6). While the same engines are able and none is overfull, any two were chosen equally often, give or take one. */
export function roundRobin(): Policy {
  let turn = 0;
  return {
    wants: "nothing",
    choose<C extends Candidate>(able: readonly C[]): C {
      // It ends: whoever holds least is not overfull.
      for (;;) {
        const next = at(able, turn++ % able.length);
        if (!isOverfull(able, next)) return next;
      }
    },
    forget: () => {},
  };
}
