/** A stream of bytes both ways, in order, that ends once: a unix socket, or memory. What carries frames. */
export interface Wire {
  /** Names the other end for messages: a path or an address. */
  readonly name: string;
  /** Begins to deliver; called once, before anything else. */
  readonly start: (events: WireEvents) => void;
  /** Takes parts in order. The wire may hold on to them until `unsentBytes` is 0. */
  readonly write: (parts: readonly Uint8Array[]) => void;
  /** Bytes taken and not yet handed to the system. */
  readonly unsentBytes: number;
  /** Ends after what was written has left; `onEnd` follows. */
  readonly end: () => void;
  /** Ends now. */
  readonly destroy: () => void;
}

export interface WireEvents {
  readonly onData: (chunk: Buffer) => void;
  /** `unsentBytes` has fallen to 0 after a time above it. */
  readonly onDrain: () => void;
  /** The end, once; null: the other side ended in order. */
  readonly onEnd: (reason: string | null) => void;
}
