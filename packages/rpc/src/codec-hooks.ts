/** A value that travels as a tagged map `{ [tag]: payload }`, such as `{"__ref": …}`. */
export interface Special {
  /** Begins with "__" and is none of the codec's own tags (`__nd`, `__bytes`, `__big`, `__undef`). */
  readonly tag: string;
  /** Plain data; it may itself hold specials. */
  readonly payload: unknown;
}

/**
 * How values the codec does not know cross the wire: object references and actor handles.
 * The encoder asks about every function and every object that is neither plain, an array nor a typed array; so such a value
 * must be a class instance or a function (a Proxy takes the prototype of its target).
 */
export interface CodecHooks {
  /** Undefined: not mine, and the value is refused with its path. */
  readonly encodeSpecial: (value: object) => Special | undefined;
  /** Throws for a tag it does not know; the codec turns that into `codec.refused` with the tag. */
  readonly decodeSpecial: (tag: string, payload: unknown) => unknown;
}
