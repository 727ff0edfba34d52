import { deepStrictEqual } from "node:assert";
import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { CodecHooks } from "./codec-hooks.js";
import { headerBytesOf } from "./frame.js";
import { storedLimits, type wireLimits } from "./limits.js";
import { NdArray } from "./nd-array.js";
import { decodeValueFrame, encodeValue, encodeValueFrame } from "./value-frame.js";
import { estimateBytes } from "./value-writer.js";

const roundTrip = (value: unknown, hooks?: CodecHooks) => decodeValueFrame(encodeValue(value, hooks), hooks);
const failureOf = (run: () => unknown): SlimeError => {
  try {
    run();
  } catch (error) {
    if (SlimeError.isAny(error)) return error;
  }
  throw new Error("no SlimeError was thrown");
};

const typedArrays = fc.oneof(
  fc.float32Array(),
  fc.float64Array(),
  fc.int8Array(),
  fc.int16Array(),
  fc.uint16Array(),
  fc.int32Array(),
  fc.uint32Array(),
  fc.uint8Array(),
  fc.bigInt64Array(),
  fc.bigUint64Array(),
);
const keys = fc.oneof(fc.string(), fc.constantFrom("__nd", "__ref", "__proto__", "____", "__", "constructor", "toString", "a"));
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 5, withCrossShrink: true },
    fc.string({ unit: "grapheme" }),
    fc.double(),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constantFrom(null, undefined),
    fc.bigInt(),
    typedArrays,
    fc.array(tie("tree"), { maxLength: 6 }),
    fc.array(fc.tuple(keys, tie("tree")), { maxLength: 5 }).map((entries) => {
      const map = {};
      for (const [key, value] of entries) Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true });
      return map;
    }),
  ),
}));

describe("C1: what is written reads back equal", () => {
  test("any tree of data", () => {
    fc.assert(
      fc.property(tree, (value) => {
        deepStrictEqual(roundTrip(value), value);
      }),
      { numRuns: 500, seed: 3 },
    );
  });

  test("arrays that are views into something larger, at any offset", () => {
    const memory = new Float32Array(100).map((_, i) => i);
    expect(roundTrip([memory.subarray(3, 7), Buffer.from("abcdef").subarray(2, 4)])).toEqual([
      new Float32Array([3, 4, 5, 6]),
      new Uint8Array([99, 100]),
    ]);
  });

  test("keys are data, whatever they are", () => {
    const hostile = JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 2}') as object;
    const read = roundTrip(hostile) as object;
    expect(Object.getPrototypeOf(read)).toBe(Object.prototype);
    expect(Object.keys(read)).toEqual(["__proto__", "constructor"]);
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
  });

  test("strings at each form's edge, of one to four bytes a character", () => {
    for (const unit of ["a", "ü", "漢", "🙂"])
      for (const length of [0, 1, 7, 8, 15, 16, 31, 32, 85, 86, 255, 256, 21_845, 21_846, 65_535, 65_536])
        expect(roundTrip(unit.repeat(length))).toBe(unit.repeat(length));
  });

  test("segments are aligned views of the frame, not copies", () => {
    const frame = encodeValue({ a: new Float64Array(300).fill(1), b: new Uint8Array(2000).fill(2), c: new BigInt64Array([5n]) });
    const aligned = new Uint8Array(new ArrayBuffer(frame.byteLength));
    aligned.set(frame);
    const read = decodeValueFrame(aligned) as { a: Float64Array; b: Uint8Array; c: BigInt64Array };
    expect(read.a.buffer).toBe(aligned.buffer);
    for (const each of [read.a, read.b, read.c]) expect(each.byteOffset % 64).toBe(0);
  });

  test("large arrays are not copied by encoding", () => {
    const data = new Float32Array(100_000);
    expect(encodeValueFrame([data]).some((part) => part.buffer === data.buffer)).toBe(true);
  });
});

describe("refusals name the place and the fix", () => {
  const circle: unknown[] = [1];
  circle.push({ back: circle });
  class Point {
    x = 1;
  }
  test.each([
    ["a function", { a: [1, () => 2] }, "value.a[1]", /function/],
    ["a symbol", { "odd key": Symbol("s") }, 'value["odd key"]', /symbol/],
    ["a huge bigint", [10n ** 4001n], "value[0]", /4,000 digits/],
    ["a cycle", circle, "value[1].back", /cycle/],
    ["a Date", [new Date(0)], "value[0]", /toISOString/],
    ["a Map", { m: new Map() }, "value.m", /fromEntries/],
    ["a Set", { s: new Set() }, "value.s", /array/],
    ["a class's instance", { p: { q: new Point() } }, "value.p.q", /Point/],
    ["an Error", new Error("x"), "value", /throw it/],
    ["a Promise", [Promise.resolve(1)], "value[0]", /await/],
    ["an ArrayBuffer", [new ArrayBuffer(1)], "value[0]", /Uint8Array/],
    ["a clamped array", [new Uint8ClampedArray(1)], "value[0]", /typed array/],
    ["a DataView", new DataView(new ArrayBuffer(1)), "value", /typed array/],
  ])("%s", (_, value, where, reason) => {
    const error = failureOf(() => encodeValue(value));
    expect(error).toMatchObject({ code: "codec.refused", details: { where } });
    expect(error.message).toMatch(reason);
  });

  test("a value too deep", () => {
    let value: unknown = 1;
    for (let i = 0; i < 101; i++) value = [value];
    expect(failureOf(() => encodeValue(value)).message).toMatch(/deeper than 100/);
  });
});

describe("hooks", () => {
  class Ref {
    readonly id: string;
    constructor(id: string) {
      this.id = id;
    }
  }
  const handle = Object.assign(() => undefined, { actorId: "actor_1" });
  const hooks: CodecHooks = {
    encodeSpecial: (value) =>
      value instanceof Ref
        ? { tag: "__ref", payload: { id: value.id, raw: new Uint8Array(5000) } }
        : value === handle
          ? { tag: "__actor", payload: "actor_1" }
          : undefined,
    decodeSpecial(tag, payload) {
      if (tag === "__ref") return new Ref((payload as { id: string }).id);
      if (tag === "__actor") return handle;
      throw new RangeError(`tag ${tag}`);
    },
  };

  test("references and handles nest", () => {
    expect(roundTrip({ refs: [new Ref("a"), [new Ref("b")]], handle }, hooks)).toEqual({ refs: [new Ref("a"), [new Ref("b")]], handle });
  });
  test("an unknown tag is the hook's error", () => {
    const frame = encodeValue(new Ref("a"), { ...hooks, encodeSpecial: () => ({ tag: "__new", payload: 1 }) });
    expect(() => decodeValueFrame(frame, hooks)).toThrow("tag __new");
    expect(failureOf(() => decodeValueFrame(frame)).code).toBe("codec.refused");
  });
});

describe("limits", () => {
  test("M1: no frame of any bytes takes more than its own size, or crashes", () => {
    const frame = Buffer.from(encodeValue({ a: [1, "text", new Float32Array(9), 5n], b: { __c: null } }));
    const bytes = fc.array(fc.tuple(fc.nat(frame.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(bytes, (changes) => {
        const damaged = Buffer.from(frame);
        for (const [at, byte] of changes) damaged[at] = byte;
        try {
          decodeValueFrame(damaged);
        } catch (error) {
          if (!SlimeError.isAny(error)) throw error;
        }
      }),
      { numRuns: 2000, seed: 5 },
    );
  });

  test("each limit refuses by its name, on both sides", () => {
    const cases: [unknown, Partial<typeof wireLimits>, RegExp][] = [
      ["x".repeat(100), { stringBytesMax: 99 }, /string/],
      [[[1, 2], [3]], { itemsMax: 4 }, /items/],
      [[new Uint8Array(2000), new Uint8Array(2000)], { segmentsMax: 1 }, /segments/],
    ];
    for (const [value, limits, what] of cases) {
      expect(failureOf(() => encodeValue(value, undefined, { ...storedLimits, ...limits })).message).toMatch(what);
      expect(failureOf(() => decodeValueFrame(encodeValue(value), undefined, { ...storedLimits, ...limits })).message).toMatch(what);
    }
    expect(failureOf(() => decodeValueFrame(encodeValue([[[1]]]), undefined, { ...storedLimits, depthMax: 2 })).code).toBe("wire.limit");
    expect(failureOf(() => decodeValueFrame(encodeValue("x".repeat(100)), undefined, { ...storedLimits, frameBytesMax: 100 })).code).toBe(
      "wire.limit",
    );
  });

  test("a frame past 4 GiB has no total, and is read by its length", () => {
    const frame = Buffer.from(encodeValue([1, 2]));
    frame.writeUInt32LE(0, 0);
    expect(headerBytesOf(frame, 0, frame.length)).toBe(frame.length - 8);
    expect(decodeValueFrame(frame)).toEqual([1, 2]);
  });
});

test("an estimate is near the truth, and stops early", () => {
  const value = { tokens: new Int32Array(50_000), text: "x".repeat(1000), rows: Array.from({ length: 100 }, (_, i) => ({ i })) };
  const truth = encodeValue(value).byteLength;
  expect(estimateBytes(value, Infinity) / truth).toBeGreaterThan(0.9);
  expect(estimateBytes(value, Infinity) / truth).toBeLessThan(1.2);
  expect(
    estimateBytes(
      Array.from({ length: 1e6 }, () => 1e9),
      1000,
    ),
  ).toBeLessThan(2000);
  const circle: unknown[] = [];
  circle.push(circle);
  expect(estimateBytes(circle, 1000)).toBeLessThanOrEqual(1001);
});

test("an array whose shape does not fit is no NdArray", () => {
  expect(() => new NdArray("f4", [2, 2], new Float32Array(3))).toThrow(RangeError);
  expect(() => new NdArray("f4", [2], new Float64Array(2))).toThrow(RangeError);
});
