import { describe, expect, it } from "vitest";
import { HeldReply, pairOutcome } from "./pair-attempt.js";
import type { Stay } from "./stays.js";
import type { AttemptOutcome, ReplySink } from "./transport.js";

interface Half {
  readonly stay: Stay;
  readonly settle: (outcome: AttemptOutcome) => void;
  readonly released: () => boolean;
}

/** A half that the test settles; released, it is abandoned, or cut once its answer began. */
function half(begun = false): Half {
  let released = false;
  let settle: (outcome: AttemptOutcome) => void = () => {};
  const outcome = new Promise<AttemptOutcome>((resolve) => (settle = resolve));
  const cancel = () => settle(begun ? { kind: "cut", reason: "given up" } : { kind: "abandoned" });
  const release = () => {
    released = true;
    cancel();
  };
  return { stay: { outcome, sent: null, cancel, release }, settle: (value) => settle(value), released: () => released };
}

const good: AttemptOutcome = { kind: "answered", status: 200 };

describe("pairOutcome", () => {
  it("D1: is the decode engine's answer, whichever engine ends first", async () => {
    for (const order of ["prefill first", "decode first", "decode only"]) {
      const [prefill, decode] = [half(), half()];
      const result = pairOutcome(prefill.stay, decode.stay);
      if (order === "prefill first") prefill.settle(good);
      decode.settle(good);
      if (order === "decode first") prefill.settle(good);
      expect(await result).toEqual({ outcome: good, by: "decode" });
      expect([prefill.released(), decode.released()]).toEqual([false, false]);
    }
  });

  const failures: readonly [AttemptOutcome, AttemptOutcome][] = [
    [
      { kind: "broken", reason: "reset" },
      { kind: "broken", reason: "reset" },
    ],
    [
      { kind: "unreachable", reason: "refused" },
      { kind: "unreachable", reason: "refused" },
    ],
    [
      { kind: "refused", status: 503 },
      { kind: "refused", status: 503 },
    ],
    [
      { kind: "stale", reason: "closed" },
      { kind: "stale", reason: "closed" },
    ],
    [{ kind: "abandoned" }, { kind: "abandoned" }],
    [
      { kind: "cut", reason: "reset" },
      { kind: "broken", reason: "reset" },
    ],
    [
      { kind: "answered", status: 400 },
      { kind: "answered", status: 400 },
    ],
  ];
  it.each(failures)("D1: a prefill engine that fails (%o) fails the pair before its first byte", async (failure, outcome) => {
    const [prefill, decode] = [half(), half()];
    const result = pairOutcome(prefill.stay, decode.stay);
    prefill.settle(failure);
    expect(await result).toEqual({ outcome, by: "prefill" });
    expect(decode.released()).toBe(true);
  });

  it.each(failures)("D1: and cuts a stream that has begun (%o)", async (failure) => {
    const [prefill, decode] = [half(), half(true)];
    const result = pairOutcome(prefill.stay, decode.stay);
    prefill.settle(failure);
    expect(await result).toMatchObject({ outcome: { kind: "cut" }, by: "prefill" });
  });

  it.each(failures)("D2: a decode engine that fails (%o) lets the prefill engine go", async (failure) => {
    const [prefill, decode] = [half(), half()];
    const result = pairOutcome(prefill.stay, decode.stay);
    decode.settle(failure);
    expect(await result).toEqual({ outcome: failure, by: "decode" });
    expect(prefill.released()).toBe(true);
  });
});

describe("HeldReply", () => {
  const told = () => {
    const calls: string[] = [];
    const sink: ReplySink = {
      begin: (status, headers, length) => calls.push(`begin ${status} ${headers.join(":")} ${length}`),
      data: (chunk) => calls.push(`data ${chunk.toString()}`) > 0,
      end: () => calls.push("end"),
      cut: () => calls.push("cut"),
    };
    return { calls, sink };
  };

  it("passes a whole refusal on", () => {
    const held = new HeldReply(100);
    held.begin(400, ["content-type", "text/plain"], 5);
    held.data(Buffer.from("too "));
    held.data(Buffer.from("long"));
    const { calls, sink } = told();
    expect(held.passTo(sink)).toBe(false);
    held.end();
    expect(held.passTo(sink)).toBe(true);
    expect(calls).toEqual(["begin 400 content-type:text/plain 5", "data too ", "data long", "end"]);
  });

  it("passes nothing of one that is too long or cut", () => {
    const long = new HeldReply(3);
    long.begin(400, [], null);
    long.data(Buffer.from("long"));
    long.end();
    const cut = new HeldReply(3);
    cut.begin(400, [], null);
    cut.cut();
    const { calls, sink } = told();
    expect([long.passTo(sink), cut.passTo(sink), new HeldReply(1).passTo(sink)]).toEqual([false, false, false]);
    expect(calls).toEqual([]);
  });
});
