import type { Socket } from "node:net";

/** Room of a shared buffer: a read and the head before it. */
const roomBytes = 136 << 10;
/** Shared buffers kept. More are in use only while sockets do not take what they are given. */
const keptMax = 4;
const kept: Buffer[] = [];

/**
 * Gathers what one socket is to get in one call, in a buffer that all share: most writes are over when they return, and then the same
 * bytes, warm in the cache, serve the next.
 * B1: a buffer goes back only when its socket has taken all of it.
 */
export class Outlet {
  readonly #socket: Socket;
  #buffer: Buffer | null = null;
  #length = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** @param text in latin1. */
  text(text: string): void {
    const buffer = this.#room(text.length);
    if (buffer === null) this.#socket.write(text, "latin1");
    else this.#length += buffer.write(text, this.#length, "latin1");
  }

  /** @param how `lent`: they may change afterwards; `kept`: they stay as they are, so that many of them need not be copied. */
  bytes(bytes: Buffer, how: "lent" | "kept"): void {
    const buffer = this.#room(bytes.length);
    if (buffer === null) this.#socket.write(how === "kept" ? bytes : Buffer.from(bytes));
    else this.#length += bytes.copy(buffer, this.#length);
  }

  /** Writes what was gathered. */
  flush(): void {
    const buffer = this.#buffer;
    if (buffer === null) return;
    const length = this.#length;
    this.#buffer = null;
    this.#length = 0;
    const socket = this.#socket;
    // A socket that lags behind would hold on to the buffer.
    if (socket.writableLength > 0) socket.write(Buffer.from(buffer.subarray(0, length)));
    else socket.write(buffer.subarray(0, length));
    if (socket.writableLength === 0 || socket.destroyed) return void (kept.length < keptMax && kept.push(buffer));
  }

  /** Forgets what was gathered. */
  drop(): void {
    if (this.#buffer !== null && kept.length < keptMax) kept.push(this.#buffer);
    this.#buffer = null;
    this.#length = 0;
  }

  /** The buffer with room for so many bytes more; null, with everything before them written, when they never fit. */
  #room(bytes: number): Buffer | null {
    if (this.#length + bytes > roomBytes) this.flush();
    if (bytes > roomBytes) return null;
    return (this.#buffer ??= kept.pop() ?? Buffer.allocUnsafeSlow(roomBytes));
  }
}
