/** FNV-1a, 64 bits: what a weight export is verified by. The prime is 2^40 + 0x1b3. */
export class Fnv1a64 {
  #high = 0xcbf29ce4;
  #low = 0x84222325;

  add(bytes: Uint8Array): void {
    let high = this.#high;
    let low = this.#low;
    for (let i = 0; i < bytes.length; i++) {
      low = (low ^ (bytes[i] ?? 0)) >>> 0;
      // (high · 2^32 + low) · (2^40 + 0x1b3), modulo 2^64; low · 0x1b3 stays below 2^41.
      const product = low * 0x1b3;
      high = (Math.imul(high, 0x1b3) + ((product / 0x100000000) | 0) + (low << 8)) >>> 0;
      low = product >>> 0;
    }
    this.#high = high;
    this.#low = low;
  }

  /** 16 digits. */
  get hex(): string {
    return this.#high.toString(16).padStart(8, "0") + this.#low.toString(16).padStart(8, "0");
  }
}
