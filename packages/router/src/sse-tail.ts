/** Ends of an event: a blank line, with either line ending. */
const boundaries: readonly Buffer[] = [Buffer.from("\n\n"), Buffer.from("\n\r\n")];
const boundaryBytesMax = 3;

/**
 * Passes server-sent events on whole: what follows the last blank line is held back until the next chunk.
 * What it is given is lent; what it holds back are copies. So a stream that breaks within an event ends at an event's boundary, and an error event can follow. Holds `heldBytesMax` at most, then lets go.
 */
export class SseTail {
  static readonly heldBytesMax = 16 << 20;
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** The last bytes of what is held: a boundary may lie across two chunks. */
  #edge: Buffer = Buffer.alloc(0);

  /** Bytes up to the last boundary, the held ones first; empty when there is none yet. */
  take(chunk: Buffer): Buffer {
    // As engines send them: whole events, nothing held.
    if (this.#heldBytes === 0 && chunk[chunk.length - 1] === 10 && chunk[chunk.length - 2] === 10) return chunk;
    const window = this.#edge.length === 0 ? chunk : Buffer.concat([this.#edge, chunk]);
    const end = Math.max(...boundaries.map((boundary) => endOfLast(window, boundary))) - this.#edge.length;
    if (end <= 0) {
      this.#hold([...this.#held, Buffer.from(chunk)], window);
      return this.#heldBytes > SseTail.heldBytesMax ? this.rest() : Buffer.alloc(0);
    }
    const out = Buffer.concat([...this.#held, chunk.subarray(0, end)]);
    const left = Buffer.from(chunk.subarray(end));
    this.#hold(left.length === 0 ? [] : [left], left);
    return out;
  }

  /** What is held, at the stream's end. */
  rest(): Buffer {
    const out = Buffer.concat(this.#held);
    this.#hold([], Buffer.alloc(0));
    return out;
  }

  #hold(held: Buffer[], last: Buffer): void {
    this.#held = held;
    this.#heldBytes = held.reduce((sum, { length }) => sum + length, 0);
    this.#edge = Buffer.from(last.subarray(Math.max(0, last.length - boundaryBytesMax + 1)));
  }
}

function endOfLast(bytes: Buffer, boundary: Buffer): number {
  const at = bytes.lastIndexOf(boundary);
  return at < 0 ? 0 : at + boundary.length;
}
