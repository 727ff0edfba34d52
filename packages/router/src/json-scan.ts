/** A value found at the top level of a JSON object, by its place in the bytes. */
export interface FoundValue {
  readonly key: string;
  /** Where the value's first byte is. */
  readonly start: number;
}

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const colon = 0x3a;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;

/**
 * Looks for the first of `keys` at the top level of a JSON object, reading at most `bytesMax` bytes and building nothing.
 * J1: it reads each byte once at most and never past the bound. J2: for valid JSON it finds what a parser finds; bytes that are no JSON
 * object, or a key that lies past the bound, give null. Keys written with escapes are not recognised. It is no validator.
 */
export function findValue(body: Uint8Array, keys: readonly string[], bytesMax: number): FoundValue | null {
  const end = Math.min(body.length, bytesMax);
  let at = objectStart(body, end);
  if (at < 0) return null;
  for (at++; at < end; ) {
    at = skipBlank(body, at, end);
    if (at >= end || body[at] !== quote) return null;
    const keyEnd = skipString(body, at, end);
    const keyStart = at + 1;
    at = skipBlank(body, keyEnd, end);
    if (at >= end || body[at] !== colon) return null;
    at = skipBlank(body, at + 1, end);
    if (at >= end) return null;
    const key = keys.find((name) => isText(body, keyStart, keyEnd - 1, name));
    if (key !== undefined) return { key, start: at };
    at = skipBlank(body, skipValue(body, at, end), end);
    if (at >= end || body[at] !== comma) return null;
    at++;
  }
  return null;
}

/** Where the object's brace is; -1 when the first `bytesMax` bytes do not begin with one. */
export function objectStart(body: Uint8Array, bytesMax = body.length): number {
  const at = skipBlank(body, 0, bytesMax);
  return at < bytesMax && body[at] === openBrace ? at : -1;
}

/** Whether the object that begins at `start` has no member. */
export function isEmptyObject(body: Uint8Array, start: number): boolean {
  return body[skipBlank(body, start + 1, body.length)] === closeBrace;
}

/** How many prompts a prompt's value holds: null for one (a text, or a list of token ids), else the length of a list of texts or of lists. */
export function batchSize(body: Uint8Array, start: number): number | null {
  if (body[start] !== openBracket) return null;
  const end = body.length;
  let at = skipBlank(body, start + 1, end);
  if (body[at] !== openBracket && body[at] !== quote) return null;
  for (let count = 1; ; count++) {
    at = skipBlank(body, skipValue(body, at, end), end);
    if (body[at] !== comma) return count;
    at = skipBlank(body, at + 1, end);
  }
}

/** The value's bytes without its end where that lies past `bytesMax`: enough to compare prompts by how they begin. */
export function valuePrefix(body: Uint8Array, start: number, bytesMax: number): Uint8Array {
  const end = Math.min(body.length, start + bytesMax);
  return body.subarray(start, skipValue(body, start, end));
}

function skipBlank(body: Uint8Array, from: number, end: number): number {
  let at = from;
  while (at < end) {
    const byte = body[at];
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return at;
    at++;
  }
  return at;
}

/** Past the closing quote of the string that opens at `from`, or `end`. */
function skipString(body: Uint8Array, from: number, end: number): number {
  for (let at = from + 1; at < end; at++) {
    const byte = body[at];
    if (byte === quote) return at + 1;
    if (byte === backslash) at++;
  }
  return end;
}

/** Past the value that begins at `from`, or `end`. */
function skipValue(body: Uint8Array, from: number, end: number): number {
  if (body[from] === quote) return skipString(body, from, end);
  let depth = 0;
  for (let at = from; at < end; at++) {
    switch (body[at]) {
      case quote:
        at = skipString(body, at, end) - 1;
        break;
      case openBrace:
      case openBracket:
        depth++;
        break;
      case closeBrace:
      case closeBracket:
        depth--;
        if (depth <= 0) return depth < 0 ? at : at + 1;
        break;
      case comma:
        if (depth === 0) return at;
        break;
      default:
    }
  }
  return end;
}

function isText(body: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) if (body[start + i] !== text.charCodeAt(i)) return false;
  return true;
}
