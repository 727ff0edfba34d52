/**
 * Writes plain MessagePack into one growing buffer: no extension types, integers in their smallest form.
 * Own, because values are checked, escaped and split into segments while they are written; an encoder that takes
 * finished values would need a copy of each first (DESIGN.md).
 */
export class MsgpackWriter {
  #buffer: Buffer;
  #view: DataView;
  /** Where the next byte goes. Setting it back takes back what was written since. */
  position: number;

  constructor(bytes: number, position = 0) {
    this.#buffer = Buffer.allocUnsafeSlow(bytes);
    this.#view = viewOf(this.#buffer);
    this.position = position;
  }

  /** The buffer being written; replaced when it grows. */
  get buffer(): Buffer {
    return this.#buffer;
  }

  /** Starts over in a fresh buffer, leaving the old one to whoever holds it. */
  renew(bytes: number, position: number): void {
    this.#buffer = Buffer.allocUnsafeSlow(bytes);
    this.#view = viewOf(this.#buffer);
    this.position = position;
  }

  nil(): void {
    this.#byte(0xc0);
  }

  boolean(value: boolean): void {
    this.#byte(value ? 0xc3 : 0xc2);
  }

  number(value: number): void {
    const small = value | 0;
    if (small === value && (small !== 0 || 1 / value > 0)) this.#int32(small);
    else if (Number.isSafeInteger(value) && value !== 0) this.int64(BigInt(value));
    else {
      this.reserve(9);
      this.#buffer[this.position] = 0xcb;
      this.#view.setFloat64(this.position + 1, value);
      this.position += 9;
    }
  }

  /** A whole number within −2⁶³ … 2⁶⁴−1. */
  int64(value: bigint): void {
    this.reserve(9);
    const unsigned = value >= 0n;
    if (unsigned && value <= 0xffff_ffffn) {
      this.#buffer[this.position] = 0xce;
      this.#view.setUint32(this.position + 1, Number(value));
      this.position += 5;
      return;
    }
    this.#buffer[this.position] = unsigned ? 0xcf : 0xd3;
    if (unsigned) this.#view.setBigUint64(this.position + 1, value);
    else this.#view.setBigInt64(this.position + 1, value);
    this.position += 9;
  }

  /** Unpaired surrogates become U+FFFD, as in every UTF-8 encoder of the platform. */
  string(text: string): void {
    const length = text.length;
    this.reserve(length * 3 + 5);
    if (length < 32 && this.#shortAscii(text, length)) return;
    const room = headerBytes(length * 3);
    const start = this.position + room;
    const bytes = this.#buffer.write(text, start, "utf8");
    const header = headerBytes(bytes);
    if (header !== room) this.#buffer.copyWithin(this.position + header, start, start + bytes);
    this.#stringHeader(bytes);
    this.position += bytes;
  }

  bytes(value: Uint8Array): void {
    const length = value.byteLength;
    this.reserve(length + 5);
    if (length < 0x100) this.#header8(0xc4, length);
    else if (length < 0x10000) this.#header16(0xc5, length);
    else this.#header32(0xc6, length);
    this.#buffer.set(value, this.position);
    this.position += length;
  }

  array(count: number): void {
    this.reserve(5);
    if (count < 16) this.#buffer[this.position++] = 0x90 | count;
    else if (count < 0x10000) this.#header16(0xdc, count);
    else this.#header32(0xdd, count);
  }

  map(count: number): void {
    this.reserve(5);
    if (count < 16) this.#buffer[this.position++] = 0x80 | count;
    else if (count < 0x10000) this.#header16(0xde, count);
    else this.#header32(0xdf, count);
  }

  /** Makes room for `bytes` more. */
  reserve(bytes: number): void {
    const needed = this.position + bytes;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(grown, 0, 0, this.position);
    this.#buffer = grown;
    this.#view = viewOf(grown);
  }

  #byte(value: number): void {
    this.reserve(1);
    this.#buffer[this.position++] = value;
  }

  #int32(value: number): void {
    this.reserve(5);
    const buffer = this.#buffer;
    if (value >= 0) {
      if (value < 0x80) buffer[this.position++] = value;
      else if (value < 0x100) this.#header8(0xcc, value);
      else if (value < 0x10000) this.#header16(0xcd, value);
      else this.#header32(0xce, value);
    } else if (value >= -32) buffer[this.position++] = value & 0xff;
    else if (value >= -0x80) this.#header8(0xd0, value & 0xff);
    else if (value >= -0x8000) this.#header16(0xd1, value & 0xffff);
    else this.#header32(0xd2, value);
  }

  /** Writes an ASCII text below 32 characters; false, with nothing written, when it holds anything else. */
  #shortAscii(text: string, length: number): boolean {
    const buffer = this.#buffer;
    const start = this.position + 1;
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      if (code > 0x7f) return false;
      buffer[start + i] = code;
    }
    buffer[this.position] = 0xa0 | length;
    this.position = start + length;
    return true;
  }

  #stringHeader(bytes: number): void {
    if (bytes < 32) this.#buffer[this.position++] = 0xa0 | bytes;
    else if (bytes < 0x100) this.#header8(0xd9, bytes);
    else if (bytes < 0x10000) this.#header16(0xda, bytes);
    else this.#header32(0xdb, bytes);
  }

  #header8(type: number, value: number): void {
    this.#buffer[this.position] = type;
    this.#buffer[this.position + 1] = value;
    this.position += 2;
  }

  #header16(type: number, value: number): void {
    this.#buffer[this.position] = type;
    this.#view.setUint16(this.position + 1, value);
    this.position += 3;
  }

  #header32(type: number, value: number): void {
    this.#buffer[this.position] = type;
    this.#view.setUint32(this.position + 1, value);
    this.position += 5;
  }
}

function viewOf(buffer: Buffer): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

function headerBytes(stringBytes: number): number {
  return stringBytes < 32 ? 1 : stringBytes < 0x100 ? 2 : stringBytes < 0x10000 ? 3 : 5;
}
