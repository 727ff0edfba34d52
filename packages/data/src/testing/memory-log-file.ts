import type { LogFile } from "../log-file.js";

/** A file in memory that can lose power at any moment, run out of space, and fail to sync. */
export class MemoryLogFile implements LogFile {
  readonly path = "memory.jsonl";
  #synced: Uint8Array;
  #bytes: Uint8Array;
  /** Bytes that still fit; an append past it writes what fits and fails with ENOSPC. */
  spaceBytes = Infinity;
  /** The next sync fails. */
  syncFails = false;
  syncs = 0;

  constructor(bytes: Uint8Array = new Uint8Array()) {
    this.#synced = bytes;
    this.#bytes = bytes;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /** What a crash leaves: all that was synced, and `survivors` more of the bytes that were appended since. */
  crash(survivors: number): MemoryLogFile {
    return new MemoryLogFile(this.#bytes.slice(0, Math.min(this.#bytes.length, this.#synced.length + survivors)));
  }

  async read(): Promise<Uint8Array> {
    return this.#bytes;
  }

  async append(bytes: Uint8Array): Promise<void> {
    const fits = bytes.subarray(0, this.spaceBytes);
    this.#bytes = Buffer.concat([this.#bytes, fits]);
    this.spaceBytes -= fits.length;
    if (fits.length < bytes.length) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  }

  async truncate(length: number): Promise<void> {
    this.#bytes = this.#bytes.slice(0, length);
    this.#synced = this.#synced.subarray(0, length);
  }

  async sync(): Promise<void> {
    if (this.syncFails) throw Object.assign(new Error("input/output error"), { code: "EIO" });
    this.#synced = this.#bytes;
    this.syncs++;
  }

  async close(): Promise<void> {}
}
