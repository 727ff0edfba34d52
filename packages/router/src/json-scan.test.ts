import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { batchSize, findValue, isEmptyObject, objectStart, valuePrefix } from "./json-scan.js";

const bytes = (text: string) => Buffer.from(text);
const found = (text: string, ...keys: string[]): string | null => {
  const value = findValue(bytes(text), keys, 1 << 20);
  return value === null ? null : valuePrefix(bytes(text), value.start, 1 << 20).toString();
};
const printed = (value: unknown, isSpaced: boolean) => JSON.stringify(value, null, isSpaced ? 1 : 0);

describe("findValue", () => {
  it.each([
    ['{"text":"a"}', '"a"'],
    [' {"rid" : "x", "text"\n:\t[1, 2]  }', "[1, 2]"],
    ['{"sampling_params":{"text":1,"stop":["}","\\"text\\":"]},"text":true}', "true"],
    ['{"a":"\\\\","text":-1.5e3,"z":0}', "-1.5e3"],
    ['{"a":[[{"text":1}]],"text":{"b":[1]}}', '{"b":[1]}'],
    ['{"nottext":1}', null],
    ['{"te\\u0078t":1}', null],
    ["[1,2]", null],
    ["", null],
    ['{"text"', null],
    ['{"text":', null],
    ["{text:1}", null],
    ['{"a" 1,"text":1}', null],
  ])("%s", (text, value) => {
    expect(found(text, "text")).toBe(value);
  });

  it("J2: finds what a parser finds, in any valid object", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom("text", "input_ids", "prompt", "rid", "x"), fc.jsonValue({ maxDepth: 3 })),
        fc.boolean(),
        (object, isSpaced) => {
          const text = printed(object, isSpaced);
          const value = findValue(bytes(text), ["input_ids", "text", "prompt"], 1 << 20);
          const first = Object.keys(object).find((key) => ["input_ids", "text", "prompt"].includes(key));
          expect(value?.key).toBe(first);
          if (value === null || first === undefined) return;
          // As JSON has it: a negative zero is none there.
          const wanted: unknown = JSON.parse(JSON.stringify(object[first]));
          expect(JSON.parse(valuePrefix(bytes(text), value.start, 1 << 20).toString())).toEqual(wanted);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("J1: never reads past its bound, and garbage ends", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.string({ unit: fc.constantFrom(...'{}[]",:\\ 1t') }).map(bytes)),
        fc.nat({ max: 250 }),
        (body, bound) => {
          let highest = -1;
          const watched = new Proxy(body, {
            get(target, key) {
              if (typeof key === "string" && /^\d+$/.test(key)) highest = Math.max(highest, Number(key));
              const value: unknown = Reflect.get(target, key, target);
              return value;
            },
          });
          const value = findValue(watched, ["t"], bound);
          expect(highest).toBeLessThan(bound);
          if (value !== null) expect(value.start).toBeLessThan(bound);
          batchSize(body, 0);
          valuePrefix(body, 0, bound);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("batchSize", () => {
  it.each([
    ['"one text"', null],
    ["[1,2,3]", null],
    ["[]", null],
    ["[[1,2],[3]]", 2],
    ["[ [1] ]", 1],
    ['["a","b,c","d]"]', 3],
    ['[ "a" , "b" ]', 2],
    ["[[],[],[]]", 3],
  ])("%s: %s", (text, size) => {
    expect(batchSize(bytes(text), 0)).toBe(size);
  });

  it("counts as a parser does", () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.string(), fc.array(fc.nat())), { minLength: 1 }), fc.boolean(), (list, isSpaced) => {
        expect(batchSize(bytes(printed(list, isSpaced)), 0)).toBe(list.length);
      }),
    );
  });
});

it("an object is empty, or is not", () => {
  expect(isEmptyObject(bytes("{ }"), 0)).toBe(true);
  expect(isEmptyObject(bytes('{"a":1}'), 0)).toBe(false);
  expect(objectStart(bytes(" \n{}"))).toBe(2);
  expect(objectStart(bytes("1"))).toBe(-1);
});
