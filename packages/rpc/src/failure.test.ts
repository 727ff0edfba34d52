import { type ErrorCode, errorFacts, factsOf, SlimeError } from "@slime/core";
import { describe, expect, test } from "vitest";
import { type Failure, fromFailure, originOf, readFailure, remoteStackOf, toFailure } from "./failure.js";
import { decodeValueFrame, encodeValue } from "./value-frame.js";

/** Through the codec, as over a wire. */
const hop = (failure: Failure): Failure => readFailure(decodeValueFrame(encodeValue(failure)));
const across = (error: unknown, origin = "actor_1#1/pid 7"): SlimeError => fromFailure(hop(toFailure(error, origin)));

describe("F1: what an error is survives the wire", () => {
  test.each(Object.keys(errorFacts) as ErrorCode[])("%s", (code) => {
    const details = { path: "/x", list: ["a", "b"], n: null, nested: { pid: 3 } };
    const error = new SlimeError(code, "what to do", details as never, { cause: new RangeError("why") });
    const read = across(error);
    expect(SlimeError.is(read, code)).toBe(true);
    expect(read).toMatchObject({
      message: error.message,
      details,
      cause: { message: "[call.failed] RangeError: why", details: { name: "RangeError" } },
    });
    expect(factsOf(read)).toEqual(errorFacts[code]);
    expect(remoteStackOf(read)).toBe(error.stack);
    expect(originOf(read)).toBe("actor_1#1/pid 7");
  });

  test("over two hops it is still the first process's", () => {
    const first = across(new TypeError("deep"));
    const second = across(first, "node_1#0/pid 8");
    expect(toFailure(second)).toEqual(toFailure(first));
    expect(originOf(second)).toBe("actor_1#1/pid 7");
  });

  test("F2: a code from tomorrow survives, and is not retried", () => {
    const failure: Failure = {
      code: "quantum.decohered",
      message: "look away",
      details: { qubits: 3 },
      stack: null,
      origin: null,
      cause: null,
    };
    const read = fromFailure(hop(failure));
    expect(read).toMatchObject({ code: "quantum.decohered", message: "[quantum.decohered] look away", details: { qubits: 3 } });
    expect(toFailure(read)).toMatchObject({ code: "quantum.decohered", message: "look away", details: { qubits: 3 } });
    expect(factsOf(read).retryable).toBe(false);
  });
});

describe("F3: anything thrown becomes a failure", () => {
  const circle: { self?: unknown } = {};
  circle.self = circle;
  test.each([
    ["a string", "just text", "threw just text"],
    ["undefined", undefined, "threw undefined"],
    ["an object", { a: 1 }, 'threw {"a":1}'],
    ["a circle", circle, "threw object"],
    ["a symbol", Symbol("s"), "threw Symbol(s)"],
  ])("%s", (_, thrown, message) => {
    expect(across(thrown)).toMatchObject({ code: "call.failed", message: `[call.failed] ${message}` });
  });

  test("details that are no data are left behind, the rest stays", () => {
    const error = new SlimeError("not_found", "no", { kind: "x", id: circle } as never);
    expect(across(error)).toMatchObject({ code: "not_found", details: null });
  });

  test("chains of causes end", () => {
    let error = new Error("0");
    for (let i = 1; i < 50; i++) error = new Error(String(i), { cause: error });
    let depth = 0;
    for (let at: unknown = across(error); at instanceof Error; at = at.cause) depth++;
    expect(depth).toBe(9);
  });

  test("what should be a failure and is not, still fails the call", () => {
    for (const value of [null, "text", [], { code: 5 }, { cause: "x" }]) expect(fromFailure(readFailure(value)).code).toBe("call.failed");
  });

  test("long texts are cut", () => {
    expect(across(new Error("x".repeat(200_000))).message.length).toBeLessThan(70_000);
  });
});
