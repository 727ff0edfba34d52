/** Longest chunk size that is read: 8 hex digits, 4 GiB. */
const sizeDigitsMax = 8;

type Step = "size" | "size-lf" | "data" | "data-cr" | "data-lf" | "last-cr" | "last-lf" | "done";

/**
 * Reads the chunked coding strictly: hex size, CR LF, data, CR LF, a last chunk of 0 and an empty line. Extensions and trailers are
 * refused: nobody here uses them, and parsers differ on them. K1: how the bytes were split over reads changes nothing.
 */
export class ChunkedDecoder {
  #step: Step = "size";
  #size = 0;
  #digits = 0;
  /** Where the payload of the last `take` ends. */
  payloadEnd = 0;

  get done(): boolean {
    return this.#step === "done";
  }

  /**
   * Takes bytes from `from` on and moves their payload together, in place, so that it lies at `from` … `payloadEnd`.
   * Returns the index just past what belongs to the body, -1 when that is not chunked coding.
   */
  take(bytes: Buffer, from: number): number {
    let at = from;
    let out = from;
    while (at < bytes.length && this.#step !== "done") {
      if (this.#step === "data") {
        const end = Math.min(bytes.length, at + this.#size);
        if (out !== at) bytes.copyWithin(out, at, end);
        out += end - at;
        this.#size -= end - at;
        at = end;
        if (this.#size === 0) this.#step = "data-cr";
      } else if (!this.#mark(bytes[at++] ?? 0)) return -1;
    }
    this.payloadEnd = out;
    return at;
  }

  /** One byte of framing; false when it must not stand here. */
  #mark(byte: number): boolean {
    switch (this.#step) {
      case "size": {
        const digit = hexDigit(byte);
        if (digit >= 0) {
          this.#size = this.#size * 16 + digit;
          return ++this.#digits <= sizeDigitsMax;
        }
        this.#step = "size-lf";
        return byte === 13 && this.#digits > 0;
      }
      case "size-lf":
        this.#digits = 0;
        this.#step = this.#size === 0 ? "last-cr" : "data";
        return byte === 10;
      case "data-cr":
        this.#step = "data-lf";
        return byte === 13;
      case "data-lf":
        this.#step = "size";
        return byte === 10;
      case "last-cr":
        this.#step = "last-lf";
        return byte === 13;
      case "last-lf":
        this.#step = "done";
        return byte === 10;
      case "data":
      case "done":
        return false;
    }
  }
}

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
