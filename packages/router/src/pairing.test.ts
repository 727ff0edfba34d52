import { SlimeError, seededRandom } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { pairable, withBootstrap } from "./pairing.js";

const url = "http://10.1.2.3:30000";
const paired = (text: string) => withBootstrap(pairable(Buffer.from(text), 100), url, 8_998, seededRandom(1)).toString();

describe("withBootstrap", () => {
  it("puts three fields in front and leaves every other byte", () => {
    const body = '{ "input_ids" :[1,2,3],\n "custom_x": 1.50, "return_routed_experts":true }';
    const text = paired(body);
    const end = text.indexOf(",", text.indexOf('"bootstrap_room"')) + 1;
    expect(`{${text.slice(end)}`).toBe(body);
    expect(JSON.parse(text)).toMatchObject({ bootstrap_host: "10.1.2.3", bootstrap_port: 8_998, custom_x: 1.5 });
  });

  it("numbers each prompt of a batch, and no other list", () => {
    const batch = JSON.parse(paired('{"rid":["a","b"],"text":["x","y,]"],"input_ids":[1]}')) as Record<string, unknown[]>;
    expect(batch).toMatchObject({ bootstrap_host: ["10.1.2.3", "10.1.2.3"], bootstrap_port: [8_998, 8_998] });
    expect(new Set(batch["bootstrap_room"]).size).toBe(2);
    expect(JSON.parse(paired('{"input_ids":[[1,2],[3]]}'))).toMatchObject({ bootstrap_port: [8_998, 8_998] });
    expect(JSON.parse(paired('{"prompt":[1,2]}'))).toMatchObject({ bootstrap_port: 8_998 });
    expect(JSON.parse(paired('{"messages":[{"role":"user","content":"a"}],"n":4}'))).toMatchObject({ bootstrap_port: 8_998 });
  });

  it("is valid JSON for an empty object, and for an address of version 6", () => {
    expect(Object.keys(JSON.parse(paired(" { } ")) as object)).toEqual(["bootstrap_host", "bootstrap_port", "bootstrap_room"]);
    const six = withBootstrap(pairable(Buffer.from("{}"), 1), "http://[::1]:30000", 1, seededRandom(1)).toString();
    expect(JSON.parse(six)).toMatchObject({ bootstrap_host: "::1" });
  });

  it("any object stays what it was, and rooms fit a signed 64-bit number", () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.nat(), (object, seed) => {
        fc.pre(!Object.keys(object).some((key) => key.startsWith("bootstrap_") || key === "__proto__"));
        const text = withBootstrap(pairable(Buffer.from(JSON.stringify(object)), 1_000), url, 1, seededRandom(seed)).toString();
        const { bootstrap_host, bootstrap_port, bootstrap_room, ...rest } = JSON.parse(text) as Record<string, unknown>;
        expect(rest).toEqual(JSON.parse(JSON.stringify(object)));
        const rooms = /"bootstrap_room":\[?([\d,]+)/.exec(text)?.[1]?.split(",").filter(Boolean) ?? [];
        for (const room of rooms) expect(BigInt(room)).toBeLessThan(2n ** 62n);
        expect([typeof bootstrap_host, typeof bootstrap_port, typeof bootstrap_room]).not.toContain("undefined");
      }),
      { numRuns: 200 },
    );
  });

  it("takes JSON objects only, and batches up to a bound", () => {
    for (const body of [null, "", "[1]", '"text"', "12", '{"text":["a","b","c"]}'])
      expect(() => pairable(body === null ? null : Buffer.from(body), 2)).toThrow(SlimeError);
    for (const body of ["\n {", '{"text":["a","b"]}', '{"input_ids":[1,2,3,4]}']) pairable(Buffer.from(body), 2);
  });
});
