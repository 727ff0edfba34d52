import { at, type Floats } from "../floats.js";

/** Central differences of `f` around `x`: what every hand-written derivative here is compared with. */
export function finiteDifference(f: (x: Float64Array) => number, x: Floats, step = 1e-6): Float64Array {
  return Float64Array.from(x, (_, i) => {
    const moved = Float64Array.from(x);
    moved[i] = at(x, i) + step;
    const above = f(moved);
    moved[i] = at(x, i) - step;
    return (above - f(moved)) / (2 * step);
  });
}

/** Largest |a − b| / max(1, |b|) over the entries; Infinity when the lengths differ. */
export function largestError(a: Floats, b: Floats): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0;
  for (let i = 0; i < b.length; i++) {
    const error = Math.abs(at(a, i) - at(b, i)) / Math.max(1, Math.abs(at(b, i)));
    if (!(error <= worst)) worst = error;
  }
  return worst;
}
