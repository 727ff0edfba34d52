/** Element types that travel raw, by numpy's short names; little-endian. `f2` and `b1` have no typed array of their own. */
export type Dtype = "i1" | "u1" | "i2" | "u2" | "i4" | "u4" | "i8" | "u8" | "f4" | "f8" | "f2" | "b1";

export type TypedArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | Float32Array
  | Float64Array;

/**
 * An array of numbers with more (or fewer) than one axis, row-major: what numpy arrays become here, and how TypeScript sends
 * them. One axis of a type that JavaScript has is a plain typed array instead. `f2` holds its bits in a Uint16Array, `b1` 0 and 1
 * in a Uint8Array.
 */
export class NdArray {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly data: TypedArray;

  /** @throws RangeError when the shape does not hold as many elements as `data`, or the dtype is not the data's. */
  constructor(dtype: Dtype, shape: readonly number[], data: TypedArray) {
    if (!(data instanceof dtypes[dtype].array))
      throw new RangeError(`dtype ${dtype} wants ${dtypes[dtype].array.name}, got ${data.constructor.name}`);
    if (elementsOf(shape) !== data.length) throw new RangeError(`shape [${shape.join(", ")}] does not hold ${data.length} elements`);
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
  }
}

interface DtypeFacts {
  readonly bytes: number;
  readonly array: new (buffer: ArrayBufferLike, byteOffset: number, length: number) => TypedArray;
}

export const dtypes: { readonly [D in Dtype]: DtypeFacts } = {
  i1: { bytes: 1, array: Int8Array },
  u1: { bytes: 1, array: Uint8Array },
  i2: { bytes: 2, array: Int16Array },
  u2: { bytes: 2, array: Uint16Array },
  i4: { bytes: 4, array: Int32Array },
  u4: { bytes: 4, array: Uint32Array },
  i8: { bytes: 8, array: BigInt64Array },
  u8: { bytes: 8, array: BigUint64Array },
  f4: { bytes: 4, array: Float32Array },
  f8: { bytes: 8, array: Float64Array },
  f2: { bytes: 2, array: Uint16Array },
  b1: { bytes: 1, array: Uint8Array },
};

const byPrototype = new Map<object, Dtype>(
  (["i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"] as const).map((dtype) => [dtypes[dtype].array.prototype as object, dtype]),
);

/** The dtype of a typed array that travels as `__nd`; bytes (Uint8Array, Buffer) travel as `__bytes` and have none here. */
export function dtypeOf(prototype: object): Dtype | undefined {
  return byPrototype.get(prototype);
}

/** For a dtype that came over the wire: own keys only, so that `constructor` is none. */
export function isDtype(text: string): text is Dtype {
  return Object.hasOwn(dtypes, text);
}

/** Elements of a shape; NaN past 2⁵³. */
export function elementsOf(shape: readonly number[]): number {
  let elements = 1;
  for (const axis of shape) elements *= axis;
  return Number.isSafeInteger(elements) ? elements : Number.NaN;
}
