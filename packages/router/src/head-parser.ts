/**
 * Heads of HTTP/1 messages, strictly: what two parsers could read differently is refused, so that no request hides in another's body.
 * W1: what is accepted, llhttp (Node's parser) accepts too, with the same method, target, fields and framing (head-parser.test.ts compares).
 * W2: a head says the length of its body in at most one way. W3: how the bytes were split over reads changes nothing.
 * Source: RFC 9112 §2.2, §3, §5, §6; RFC 9110 §7.6.1.
 */

/** Bounds of a head; Node's are 16 KiB and 2,000 fields. */
export const headLimits = { bytesMax: 16 << 10, fieldsMax: 128 } as const;

/** Why a message is not taken, and the status that says so. */
export interface Refusal {
  readonly kind: "refused";
  readonly status: 400 | 411 | 413 | 417 | 431 | 501 | 505;
  readonly reason: string;
}

/** How long a body is: bytes, in chunks, or (replies alone) until the connection closes. */
export type BodyLength = number | "chunked" | "close";

export interface RequestHead {
  readonly kind: "request";
  readonly method: string;
  /** Path and query, in origin form. */
  readonly target: string;
  readonly body: number | "chunked";
  /** The connection may carry another request afterwards; never in HTTP/1.0, where parsers differ on it. */
  readonly keepAlive: boolean;
  readonly minor: 0 | 1;
  /** The client waits for `100 Continue` before it sends its body. */
  readonly expectsContinue: boolean;
  readonly requestId: string | null;
  /** Name, value, …: end-to-end fields, without `host`, `content-length` and `x-request-id`. */
  readonly headers: string[];
}

export interface ReplyHead {
  readonly kind: "reply";
  readonly status: number;
  readonly body: BodyLength;
  /** `content-length` as announced; with a reply to HEAD it differs from `body`. */
  readonly length: number | null;
  readonly keepAlive: boolean;
  /** Name, value, …: end-to-end fields, without `content-length`. */
  readonly headers: string[];
}

/** Methods passed on. CONNECT and TRACE have no place here, and llhttp refuses names it does not know. */
const methods: ReadonlySet<string> = new Set(["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"]);
const requestLine = /^([A-Za-z]+) (\/[\x21\x22\x24-\x7e]*) HTTP\/(\d\.\d)$/;
const replyLine = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?$/;
const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** A line feed or carriage return alone, or a control character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const stray = /(?:^|[^\r])\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/;
const lengthForm = /^\d{1,15}$/;
const hostForm = /^[A-Za-z0-9._~:[\]-]*$/;
const separator = Buffer.from("\r\n\r\n");

const refused = (status: Refusal["status"], reason: string): Refusal => ({ kind: "refused", status, reason });

/**
 * Index just past a head that begins at 0; -1 when more is to come; a refusal as soon as it is sure that no head will come of it.
 * @param from where the search may begin: the length that was searched before, less 3.
 */
export function headEnd(bytes: Buffer, from = 0): number | Refusal {
  const at = bytes.indexOf(separator, Math.max(0, from));
  const length = at < 0 ? bytes.length : at + 4;
  if (length > headLimits.bytesMax) return refused(431, `the head is larger than ${headLimits.bytesMax} bytes`);
  if (at >= 0) return length;
  // The last byte may be half of a line's end.
  const text = bytes.toString("latin1", 0, bytes.length - (bytes[bytes.length - 1] === 13 ? 1 : 0));
  return stray.test(text) ? refused(400, "a line does not end in CR LF, or holds a control character") : -1;
}

/** @param text a whole head in latin1, the empty line included. */
export function parseRequestHead(text: string): RequestHead | Refusal {
  if (stray.test(text)) return refused(400, "a line does not end in CR LF, or holds a control character");
  const lineEnd = text.indexOf("\r\n");
  const line = requestLine.exec(text.slice(0, lineEnd));
  if (line === null) return refused(400, "the request line is not METHOD /path HTTP/1.1");
  const [, method = "", target = "", version = ""] = line;
  if (version !== "1.1" && version !== "1.0") return refused(505, `HTTP/${version} is not spoken here, HTTP/1.1 is`);
  if (!methods.has(method)) return refused(501, `method ${method.slice(0, 20)} is not supported`);
  const minor = version === "1.1" ? 1 : 0;
  const fields = parseFields(text, lineEnd + 2, "request");
  if (fields.kind === "refused") return fields;
  if (fields.hosts > 1 || (minor === 1 && fields.hosts === 0)) return refused(400, "there must be exactly one Host");
  if (fields.chunked && minor === 0) return refused(400, "HTTP/1.0 has no Transfer-Encoding");
  if (fields.expect !== null && fields.expect !== "100-continue") return refused(417, "only 100-continue can be expected");
  return {
    kind: "request",
    method,
    target,
    body: fields.chunked ? "chunked" : (fields.length ?? 0),
    keepAlive: minor === 1 && !fields.close,
    minor,
    expectsContinue: fields.expect !== null && minor === 1,
    requestId: fields.requestId,
    headers: fields.headers,
  };
}

/** @param text a whole head in latin1, the empty line included. @param toHead the request was a HEAD: no body follows. */
export function parseReplyHead(text: string, toHead: boolean): ReplyHead | Refusal {
  if (stray.test(text)) return refused(400, "a line does not end in CR LF, or holds a control character");
  const lineEnd = text.indexOf("\r\n");
  const line = replyLine.exec(text.slice(0, lineEnd));
  if (line === null) return refused(400, "the status line is not HTTP/1.1 NNN");
  const fields = parseFields(text, lineEnd + 2, "reply");
  if (fields.kind === "refused") return fields;
  const status = Number(line[2]);
  if (fields.chunked && line[1] === "0") return refused(400, "HTTP/1.0 has no Transfer-Encoding");
  const bodiless = toHead || status < 200 || status === 204 || status === 304;
  const body = bodiless ? 0 : fields.chunked ? "chunked" : (fields.length ?? "close");
  const keepAlive = body !== "close" && line[1] === "1" && !fields.close;
  return { kind: "reply", status, body, length: fields.length, keepAlive, headers: fields.headers };
}

interface Fields {
  readonly kind: "fields";
  readonly headers: string[];
  length: number | null;
  chunked: boolean;
  hosts: number;
  close: boolean;
  expect: string | null;
  requestId: string | null;
}

/** Field lines from `at` to the empty line. Stray characters were refused before. */
function parseFields(text: string, at: number, of: "request" | "reply"): Fields | Refusal {
  const fields: Fields = {
    kind: "fields",
    headers: [],
    length: null,
    chunked: false,
    hosts: 0,
    close: false,
    expect: null,
    requestId: null,
  };
  let nominated: string[] | null = null;
  const bodyStart = text.length - 2;
  for (let count = 0; at < bodyStart; count++) {
    if (count === headLimits.fieldsMax) return refused(431, `more than ${headLimits.fieldsMax} header fields`);
    const lineEnd = text.indexOf("\r\n", at);
    const colon = text.indexOf(":", at);
    // A folded line begins with a blank, which no name holds.
    if (colon < 0 || colon > lineEnd) return refused(400, "a header line has no colon");
    const name = text.slice(at, colon);
    if (!token.test(name)) return refused(400, "a header name is not a token");
    const value = trimmed(text, colon + 1, lineEnd);
    at = lineEnd + 2;
    const lower = name.toLowerCase();
    switch (lower) {
      case "content-length":
        // llhttp takes a tab before the number and none after it: none is taken here.
        if (text.slice(colon, lineEnd).includes("\t")) return refused(400, "Content-Length is not a number");
        if (fields.length !== null) return refused(400, "Content-Length is given twice");
        if (!lengthForm.test(value)) return refused(400, "Content-Length is not a number");
        fields.length = Number(value);
        break;
      case "transfer-encoding":
        if (fields.chunked) return refused(400, "Transfer-Encoding is given twice");
        if (value.toLowerCase() !== "chunked") return refused(501, "the only Transfer-Encoding known is chunked");
        fields.chunked = true;
        break;
      case "connection":
        for (const option of value.toLowerCase().split(",")) {
          const word = option.trim();
          // What follows an offer to switch protocols may be read as either, so nothing follows.
          if (word === "close" || word === "upgrade") fields.close = true;
          else if (word !== "" && word !== "keep-alive") (nominated ??= []).push(word);
        }
        break;
      case "keep-alive":
      case "proxy-authenticate":
      case "proxy-authorization":
      case "proxy-connection":
      case "te":
      case "trailer":
      case "upgrade":
        break;
      case "host":
        if (of === "request") {
          if (!hostForm.test(value)) return refused(400, "Host is not a host and port");
          fields.hosts++;
          break;
        }
        fields.headers.push(name, value);
        break;
      case "expect":
        if (of === "request") fields.expect = value.toLowerCase();
        break;
      case "x-request-id":
        if (of === "request" && fields.requestId === null && value !== "") {
          fields.requestId = value;
          break;
        }
        if (of === "reply") fields.headers.push(name, value);
        break;
      default:
        fields.headers.push(name, value);
    }
  }
  if (fields.chunked && fields.length !== null) return refused(400, "both Content-Length and Transfer-Encoding are given");
  return nominated === null ? fields : { ...fields, headers: without(fields.headers, nominated) };
}

/** A value without the blanks around it. */
function trimmed(text: string, from: number, to: number): string {
  while (from < to && isBlank(text.charCodeAt(from))) from++;
  while (to > from && isBlank(text.charCodeAt(to - 1))) to--;
  return text.slice(from, to);
}

function isBlank(code: number): boolean {
  return code === 32 || code === 9;
}

/** Fields that `Connection` names belong to this hop alone. */
function without(headers: readonly string[], names: readonly string[]): string[] {
  return headers.filter((_, at) => !names.includes((headers[at - (at % 2)] ?? "").toLowerCase()));
}
