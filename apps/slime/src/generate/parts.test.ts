import { Command } from "commander";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { register } from "../commands/generate.js";
import { type AnswerPlace, textSink } from "./answer-sink.js";
import type { Answer } from "./ask.js";
import { oneLine, shownLength, withoutControl } from "./printed-text.js";
import { flagNames, type GenerateFlags, readSettings } from "./settings.js";

const flags: GenerateFlags = { hfCheckpoint: "m", temperature: 0, topP: 1, topK: -1, n: 1, timeoutSecs: 60 };

describe("readSettings", () => {
  it("hands --sglang-* on by SGLang's names", () => {
    const words = [
      "--sglang-mem-fraction-static",
      "0.5",
      "--sglang-disable-cuda-graph",
      "--sglang-device=cpu",
      "--sglang-cuda-graph-bs",
      "1",
      "2",
    ];
    expect(readSettings({ ...flags, rolloutBackend: "sglang", sglangPython: "p" }, words).by).toEqual({
      kind: "sglang",
      hfCheckpoint: "m",
      python: "p",
      gpus: null,
      args: { mem_fraction_static: 0.5, disable_cuda_graph: true, device: "cpu", cuda_graph_bs: [1, 2] },
    });
  });

  it("names every mistake at once", () => {
    const attempt = () => readSettings({ ...flags, n: 2 }, ["hello", "--sglang-device", "cpu", "--tempature", "1"]);
    for (const part of [
      /"hello" belongs to no flag.*--prompt "hello"/,
      /--tempature: there is no such flag \(did you mean --temperature\?\)/,
      /add --rollout-backend sglang/,
      /--n 2 at --temperature 0/,
    ])
      expect(attempt).toThrow(part);
  });

  it("knows every flag of the command", () => {
    const program = new Command();
    register(program);
    const known = program.commands[0]?.options.map(({ long }) => long?.replace(/^--/, ""));
    expect([...flagNames].sort()).toEqual(known?.sort());
  });

  it("--url needs no model and starts nothing", () => {
    const { hfCheckpoint: _, ...rest } = flags;
    expect(readSettings({ ...rest, url: "127.0.0.1:30000" }, []).by).toEqual({
      kind: "url",
      url: "http://127.0.0.1:30000",
      hfCheckpoint: null,
    });
    expect(() => readSettings({ ...rest, url: "h:1", rolloutBackend: "sglang" }, ["--sglang-device", "cpu"])).toThrow(
      /leave --rollout-backend out.*leave --sglang-device out/,
    );
  });
});

describe("shownLength", () => {
  const letters = fc.string({ unit: fc.constantFrom("a", "b", "\n", "é"), maxLength: 12 });
  it("shows as much as it can, and nothing that a stop text would take back", () => {
    fc.assert(
      fc.property(
        letters,
        fc.array(fc.string({ unit: fc.constantFrom("a", "b", "\n"), minLength: 1, maxLength: 4 }), { maxLength: 3 }),
        (text, stops) => {
          const ends = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
          const whole = text.slice(0, Math.min(text.length, ...ends));
          let shown = 0;
          for (let length = 0; length <= text.length; length++) {
            const now = shownLength(text.slice(0, length), stops);
            expect(whole.startsWith(text.slice(0, Math.max(shown, now)))).toBe(true);
            shown = Math.max(shown, now);
          }
          if (stops.length === 0) expect(shown).toBe(text.length);
        },
      ),
      { seed: 8, numRuns: 500 },
    );
  });

  it("holds half a character back", () => expect(shownLength("a\ufffd", [])).toBe(1));
});

describe("printed text", () => {
  it("shows control characters instead of obeying them", () => {
    expect(withoutControl("a\u001b[2Jb\r\n\tc\u007f\u009b")).toBe("a␛[2Jb␍\n\tc␡\ufffd");
  });
  it("fits a line", () => expect([oneLine(" a\n b ", 9), oneLine("abcdef", 4)]).toEqual(["a b", "abc…"]));
});

describe("textSink", () => {
  it("keeps the order of places, whatever the order of answers; the first unfinished one grows", () => {
    const written: string[] = [];
    const place = (promptIndex: number): AnswerPlace => ({
      prompt: { prompt: `p${promptIndex}`, inputIds: [1], text: "", maxNewTokens: 1 },
      promptIndex,
      answerIndex: 0,
    });
    const sink = textSink({ places: [place(0), place(1)], stops: [], write: (text) => written.push(text), terminal: false });
    const answer = (text: string) => ({ text }) as Answer;
    sink.grow?.(1, "B");
    sink.grow?.(0, "A");
    sink.done(1, answer("BB"));
    sink.grow?.(0, "AA");
    sink.done(0, answer("AAA"));
    sink.end();
    expect(written.join("")).toBe("[1] p0\nAAA\n\n[2] p1\nBB\n");
    expect(written.slice(0, 3)).toEqual(["[1] p0\n", "A", "A"]);
  });
});
