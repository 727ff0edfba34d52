import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ChunkedDecoder } from "./chunked.js";

/** Payload and what is left, over reads cut at `cuts`; null when refused. */
function decode(
  text: string,
  cuts: readonly number[] = [],
): { readonly payload: string; readonly rest: string; readonly done: boolean } | null {
  const bytes = Buffer.from(text, "latin1");
  const ends = [...new Set(cuts.map((cut) => cut % (bytes.length + 1))), bytes.length].sort((a, b) => a - b);
  const decoder = new ChunkedDecoder();
  let payload = "";
  let start = 0;
  for (const end of ends) {
    // A prefix that is not the body's must stay as it is.
    const read = Buffer.concat([Buffer.from("##"), bytes.subarray(start, end)]);
    const next = decoder.take(read, 2);
    if (next < 0) return null;
    expect(read.toString("latin1", 0, 2)).toBe("##");
    payload += read.toString("latin1", 2, decoder.payloadEnd);
    if (decoder.done) return { payload, rest: read.toString("latin1", next) + bytes.toString("latin1", end), done: true };
    start = end;
  }
  return { payload, rest: "", done: false };
}

describe("chunks", () => {
  it.each<[string, ReturnType<typeof decode>]>([
    ["0\r\n\r\n", { payload: "", rest: "", done: true }],
    ["5\r\nhello\r\n0\r\n\r\nGET", { payload: "hello", rest: "GET", done: true }],
    ["1\r\na\r\nA\r\n0123456789\r\n000\r\n\r\n", { payload: "a0123456789", rest: "", done: true }],
    ["5\r\nhel", { payload: "hel", rest: "", done: false }],
    ["5\r\n\r\n0\r\n\r\n0\r\n\r\n", { payload: "\r\n0\r\n", rest: "", done: true }],
  ])("reads %j", (text, wanted) => expect(decode(text)).toEqual(wanted));

  it.each([
    "\r\n",
    "g\r\n",
    "-1\r\n",
    "+1\r\n",
    "0x1\r\n",
    " 1\r\n",
    "1 \r\n",
    "1;a=b\r\n",
    "1\n",
    "1\rX",
    "1\r\nab",
    "1\r\na\n",
    "1\r\na\r0",
    "000000001\r\n",
    "0\r\nX: 1\r\n\r\n",
    "0\r\n\n",
    "0\n\n",
  ])("refuses %j", (text) => expect(decode(text)).toBeNull());

  it("K1: what was encoded comes out, however it is split, and nothing more is eaten", () => {
    fc.assert(
      fc.property(
        fc.array(fc.string({ unit: "binary-ascii", minLength: 1, maxLength: 40 }), { maxLength: 8 }),
        fc.string({ unit: "binary-ascii", maxLength: 10 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (chunks, after, cuts) => {
          const text = `${chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join("")}0\r\n\r\n`;
          expect(decode(text + after, cuts)).toEqual({ payload: chunks.join(""), rest: after, done: true });
        },
      ),
    );
  });

  it("K1: garbage is read alike however it is split", () => {
    const part = fc.constantFrom("0", "1", "5", "a", "F", "\r", "\n", "\r\n", "hello", ";", " ", "\0");
    fc.assert(
      fc.property(fc.array(part, { maxLength: 16 }), fc.array(fc.nat(), { maxLength: 5 }), (parts, cuts) => {
        expect(decode(parts.join(""), cuts)).toEqual(decode(parts.join("")));
      }),
      { numRuns: 1_000 },
    );
  });
});
