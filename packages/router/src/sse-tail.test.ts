import fc from "fast-check";
import { expect, it } from "vitest";
import { SseTail } from "./sse-tail.js";

it("passes on whole events only, and every byte once, however the bytes are cut", () => {
  const event = fc
    .tuple(fc.string({ unit: fc.constantFrom("a", "{", "\r", "é") }), fc.constantFrom("\n\n", "\r\n\r\n"))
    .map(([text, end]) => `data: ${text.replaceAll("\r", "")}${end}`);
  fc.assert(
    fc.property(fc.array(event), fc.constantFrom("", "data: part", "\n"), fc.array(fc.nat({ max: 400 })), (events, end, cuts) => {
      const bytes = Buffer.from(events.join("") + end);
      const tail = new SseTail();
      const at = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
      let passed = "";
      for (let i = 0; i + 1 < at.length; i++) {
        // What it is given is lent: the bytes are others afterwards.
        const lent = Buffer.from(bytes.subarray(at[i], at[i + 1]));
        const out = tail.take(lent).toString("latin1");
        lent.fill("?");
        if (out !== "") expect(out).toMatch(/\n\r?\n$/);
        passed += out;
      }
      expect(passed + tail.rest().toString("latin1")).toBe(bytes.toString("latin1"));
      if (events.length > 0) expect(passed.length).toBeGreaterThanOrEqual(Buffer.from(events.join("")).length);
    }),
  );
});
