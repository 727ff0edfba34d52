import fc from "fast-check";
import { expect, it } from "vitest";
import { Fnv1a64 } from "./checksum.js";

const known: readonly (readonly [string, string])[] = [
  ["", "cbf29ce484222325"],
  ["a", "af63dc4c8601ec8c"],
  ["foobar", "85944171f73967e8"],
];
it.each(known)("is the published sum of %j", (text, hex) => {
  const sum = new Fnv1a64();
  sum.add(Buffer.from(text));
  expect(sum.hex).toBe(hex);
});

it("is that of arithmetic on whole numbers, however the bytes are cut", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 })), (parts) => {
      const sum = new Fnv1a64();
      let wanted = 0xcbf29ce484222325n;
      for (const part of parts) {
        sum.add(part);
        for (const byte of part) wanted = BigInt.asUintN(64, (wanted ^ BigInt(byte)) * 0x100000001b3n);
      }
      expect(sum.hex).toBe(wanted.toString(16).padStart(16, "0"));
    }),
  );
});
