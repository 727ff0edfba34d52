import { invariant } from "@slime/core";

/** Numbers by position, whatever array holds them: plain, Float32Array or Float64Array. Results are always Float64Array. */
export type Floats = ArrayLike<number>;

/** Element `i`, which the caller knows to exist. */
export function at(values: Floats, i: number): number {
  const value = values[i];
  invariant(value !== undefined, `index ${i} lies outside of an array of ${values.length}`);
  return value;
}

/** Throws when two columns that describe the same tokens differ in length: a bug of the caller, never of its data. */
export function sameLength(wanted: number, columns: Readonly<Record<string, Floats | undefined>>): void {
  for (const [name, column] of Object.entries(columns)) {
    invariant(column === undefined || column.length === wanted, `${name} has ${column?.length} entries, ${wanted} wanted`);
  }
}

/** Start of each sequence in the flattened tokens, and their total as the last entry. */
export function offsetsOf(lengths_D: Floats): Float64Array {
  const offsets = new Float64Array(lengths_D.length + 1);
  for (let d = 0; d < lengths_D.length; d++) offsets[d + 1] = at(offsets, d) + at(lengths_D, d);
  return offsets;
}
