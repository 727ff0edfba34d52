/**
 * What a receiver accepts. Every limit is checked before anything is allocated for the data it bounds, so that a
 * damaged or hostile frame costs no more than its own bytes.
 */
export interface FrameLimits {
  /** Bytes of a whole frame. Values above 100 KiB go through the object store, so a wire's frames stay far below. */
  readonly frameBytesMax: number;
  /** Nesting of arrays and maps within a message; also what makes a cycle end. */
  readonly depthMax: number;
  /** Array elements and map entries of a whole frame, summed. Bounds the memory that small frames can blow up to. */
  readonly itemsMax: number;
  /** UTF-8 bytes of one string. */
  readonly stringBytesMax: number;
  /** Raw segments of a frame. */
  readonly segmentsMax: number;
  /** Messages of a frame, which is one event-loop turn of the sender. */
  readonly messagesMax: number;
}

/** Characters of a bigint in decimal: Python converts no longer ones by default. */
export const bigDigitsMax = 4000;

/** Limits of calls: what one turn of one process sends to another. */
export const wireLimits: FrameLimits = {
  frameBytesMax: 256 * 1024 * 1024,
  depthMax: 100,
  itemsMax: 4_000_000,
  stringBytesMax: 32 * 1024 * 1024,
  segmentsMax: 65_536,
  messagesMax: 262_144,
};

/** Limits of stored values: written by the same cluster's processes, and larger. */
export const storedLimits: FrameLimits = {
  frameBytesMax: 64 * 1024 * 1024 * 1024,
  depthMax: 100,
  itemsMax: 64_000_000,
  stringBytesMax: 256 * 1024 * 1024,
  segmentsMax: 1_000_000,
  messagesMax: 1,
};
