import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { parseDataPath, sliceRange } from "./data-path.js";
import type { DataSource } from "./data-source.js";
import { badLinesMax, lineBytesMax } from "./jsonl-file.js";
import { epochOrder, type JsonlSourceOptions, loadPromptSet, openJsonlSource } from "./jsonl-source.js";
import type { PromptCodec } from "./prompt-codec.js";
import { defaultRecordKeys } from "./prompt-record.js";
import { pythonRandom } from "./python-random.js";

const directory = mkdtempSync(join(tmpdir(), "slime-data-"));
afterAll(() => rmSync(directory, { recursive: true }));

let files = 0;
function fileOf(text: string | Buffer, name = `f${files++}.jsonl`): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}
const rowsFile = (count: number) =>
  fileOf(Array.from({ length: count }, (_, i) => `${JSON.stringify({ prompt: `p${i}`, label: i })}\n`).join(""));

/** One token a character; the template wraps in angle brackets. */
const codec: PromptCodec = {
  render: (prompt) => (typeof prompt === "string" ? `<user>${prompt}` : prompt.map((m) => `<${m.role}>${m.content}`).join("")),
  encode: (prompt) => [...(typeof prompt === "string" ? prompt : "")].map(() => 0),
  decode: () => "",
  hasTemplate: true,
  encodeText: (text) => [...text].map(() => 0),
};
const plain: Omit<JsonlSourceOptions, "path"> = {
  wanted: "--prompt-data",
  applyChatTemplate: false,
  codec: null,
  promptTokensMax: null,
  shuffle: true,
  seed: 42,
};
const opened: DataSource[] = [];
afterEach(() => Promise.all(opened.splice(0).map((source) => source.close())));
const openCounted = async (path: string, options: Partial<JsonlSourceOptions> = {}) => {
  const result = await openJsonlSource({ ...plain, path, ...options });
  opened.push(result.source);
  return result;
};
const open = async (path: string, options: Partial<JsonlSourceOptions> = {}): Promise<DataSource> =>
  (await openCounted(path, options)).source;
const ids = async (source: DataSource, count: number) => (await source.take(count)).map((group) => group.instanceId);

async function failure(work: Promise<unknown>): Promise<SlimeError> {
  const error = await work.then(() => null).catch((thrown: unknown) => thrown);
  if (!SlimeError.isAny(error)) throw new Error(`expected a SlimeError, got ${String(error)}`);
  return error;
}

describe("pythonRandom", () => {
  type Case = {
    readonly name: string;
    readonly function: string;
    readonly input: { readonly seed: number; readonly n: number; readonly head?: number; readonly count: number };
    readonly expected: number[];
  };
  const { cases } = JSON.parse(readFileSync(new URL("../../../test/golden/algorithms.json", import.meta.url), "utf8")) as { cases: Case[] };

  it.each(cases.filter((c) => c.function === "python_shuffle").map((c) => [c.name, c] as const))("%s", (_, { input, expected }) => {
    const items = Array.from({ length: input.n }, (_value, i) => i);
    pythonRandom(input.seed).shuffle(items);
    expect(items.slice(0, input.head)).toEqual(expected);
  });

  it.each(cases.filter((c) => c.function === "python_random").map((c) => [c.name, c] as const))("%s", (_, { input, expected }) => {
    const random = pythonRandom(input.seed);
    expect(Array.from({ length: input.count }, () => random.random())).toEqual(expected);
  });
});

describe("parseDataPath", () => {
  it.each([
    ["f.jsonl", 10, 0, 10],
    ["f.jsonl@[3:7]", 10, 3, 7],
    ["f.jsonl@[-100:]", 10, 0, 10],
    ["f.jsonl@[:-2]", 10, 0, 8],
    ["f.jsonl@[-3:-1]", 10, 7, 9],
    ["f.jsonl@[7:3]", 10, 7, 7],
    ["f.jsonl@[5:999]", 10, 5, 10],
    ["a@b/f.jsonl", 4, 0, 4],
  ])("%s of %i rows keeps [%i, %i)", (path, count, from, to) => {
    const parsed = parseDataPath(path);
    expect(parsed.file).toBe(path.split("@[")[0]);
    expect(sliceRange(parsed.slice, count)).toEqual({ from, to });
  });

  it("refuses what looks like a slice and is none", () => {
    expect(() => parseDataPath("f.jsonl@[1:2:3]")).toThrow("FILE@[START:END]");
    expect(() => parseDataPath("f.jsonl@[a:b]")).toThrow("[config.invalid]");
  });
});

describe("openJsonlSource", () => {
  it("gives upstream's order: seed + epoch, over the original order each time", async () => {
    const source = await open(rowsFile(5));
    expect(await ids(source, 12)).toEqual([
      "0:3",
      "0:1",
      "0:2",
      "0:4",
      "0:0",
      "1:1",
      "1:4",
      "1:3",
      "1:2",
      "1:0",
      ...[...epochOrder(5, { shuffle: true, seed: 42, epoch: 2 })].slice(0, 2).map((row) => `2:${row}`),
    ]);
  });

  it("S1–S3, S5: a function of its cursor; each epoch whole; state and restore continue", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.nat(9), { maxLength: 6 }),
        fc.nat(9),
        fc.boolean(),
        async (size, takes, more, shuffle) => {
          const path = rowsFile(size);
          const source = await open(path, { shuffle });
          const parts = [];
          for (const count of takes) parts.push(...(await source.take(count)));
          const state = JSON.parse(JSON.stringify(source.state()));
          const rest = await source.take(more + size);
          const whole = [...parts, ...rest];
          for (const [i, group] of whole.entries()) expect(group.groupIndex).toBe(i);
          for (let epoch = 0; (epoch + 1) * size <= whole.length; epoch++)
            expect(new Set(whole.slice(epoch * size, (epoch + 1) * size).map((group) => group.instanceId))).toEqual(
              new Set(Array.from({ length: size }, (_, row) => `${epoch}:${row}`)),
            );
          const resumed = await open(path, { shuffle });
          await resumed.restore(state);
          expect(await resumed.take(more + size)).toEqual(rest);
          expect(await resumed.lookup(whole.map((group) => group.instanceId))).toEqual(whole);
          for (const group of whole) expect(group.prompt).toBe(`p${group.instanceId.split(":")[1]}`);
          await Promise.all(opened.splice(0).map((one) => one.close()));
        },
      ),
      { seed: 61, numRuns: 60 },
    );
  });

  it("S4: what was given back comes first, under its old names, and survives a restore", async () => {
    const path = rowsFile(4);
    const source = await open(path);
    const first = await source.take(3);
    source.giveBack([first[2]?.instanceId ?? "", first[0]?.instanceId ?? ""]);
    const resumed = await open(path);
    await resumed.restore(JSON.parse(JSON.stringify(source.state())));
    for (const one of [source, resumed]) {
      const next = await one.take(3);
      expect(next.slice(0, 2)).toEqual([first[2], first[0]]);
      expect(next[2]?.groupIndex).toBe(3);
    }
    await expect(source.lookup(["0:9"])).rejects.toThrow("[not_found]");
    await expect(source.lookup(["nine"])).rejects.toThrow("[not_found]");
  });

  it("takers at the same time get different prompts", async () => {
    const source = await open(rowsFile(6));
    const taken = (await Promise.all([source.take(2), source.take(2), source.take(2)])).flat().map((group) => group.instanceId);
    expect(new Set(taken).size).toBe(6);
  });

  it("keeps a row's name under slices and filters", async () => {
    const path = fileOf(["aa", "bbbbbb", "cc", "dddddd", "ee"].map((prompt) => `${JSON.stringify({ prompt })}\n`).join(""));
    expect(await ids(await open(`${path}@[1:]`, { shuffle: false }), 4)).toEqual(["0:1", "0:2", "0:3", "0:4"]);
    const filtered = await openCounted(`${path}@[1:]`, { shuffle: false, codec, promptTokensMax: 3 });
    expect(filtered.tooLong).toBe(2);
    expect(await ids(filtered.source, 3)).toEqual(["0:2", "0:4", "1:2"]);
    expect((await failure(open(path, { codec, promptTokensMax: 1 }))).message).toContain("all 5 prompts");
    expect((await failure(open(`${path}@[9:]`))).message).toContain("has no rows (the file has 5)");
  });

  it("reads messages, other keys, labels that are no text, metadata and tools; skips blank lines, a BOM and CRs", async () => {
    const messages = [{ role: "user", content: "hi" }];
    const text = `\uFEFF${JSON.stringify({ question: "one", answer: 7, extra: { a: 1 }, tools: [{ name: "t" }] })}\r\n\n  \n${JSON.stringify({ question: messages, answer: ["x"] })}`;
    const source = await open(fileOf(text), {
      shuffle: false,
      applyChatTemplate: true,
      codec,
      keys: { ...defaultRecordKeys, input: "question", label: "answer", metadata: "extra" },
    });
    expect(await source.take(2)).toEqual([
      { groupIndex: 0, instanceId: "0:0", prompt: "<user>one", label: "7", metadata: { a: 1, tools: [{ name: "t" }] } },
      { groupIndex: 1, instanceId: "0:1", prompt: "<user>hi", label: '["x"]', metadata: {} },
    ]);
    expect((await (await open(fileOf('{"input":"in","prompt":"other"}\n'))).take(1))[0]?.prompt).toBe("in");
  });

  it("reports every bad line with place and fix, and the rest by number (J1)", async () => {
    const path = fileOf(
      [
        '{"prompt":"ok"}',
        "{broken",
        '{"text":"x"}',
        '["prompt"]',
        '{"prompt":""}',
        '{"prompt":7}',
        '{"prompt":[]}',
        '{"prompt":[{"role":"user"}]}',
        '{"prompt":[{"role":"user","content":"x"}]}',
        '{"prompt":"x","metadata":3}',
        '{"prompt":"x","tools":3}',
      ].join("\n"),
    );
    const error = await failure(open(path));
    expect(SlimeError.is(error, "data.invalid") && error.details.issues.map((issue) => issue.replace(`${path}:`, ""))).toEqual([
      expect.stringMatching(/^2: is not JSON \(.*\): mend or remove the line$/),
      '3: has no "prompt" (it has "text"): add it, or name the right field with --input-key',
      '4: must be a JSON object like {"prompt": "…", "label": "…"}',
      '5: "prompt" is empty',
      '6: "prompt" must be text or a list of chat messages',
      '7: "prompt" is an empty list of messages',
      '8: message 1 of "prompt" must be {"role": "…", "content": "…"} with text in both',
      "9: the prompt is a list of chat messages: turn --apply-chat-template on",
      '10: "metadata" must be an object',
      '11: "tools" must be a list',
    ]);
    const many = await failure(open(fileOf(Array.from({ length: badLinesMax + 7 }, () => "x\n").join(""))));
    expect(SlimeError.is(many, "data.invalid") && many.details.issues.length).toBe(badLinesMax + 1);
    expect(many.message).toContain(`${badLinesMax + 7} bad lines`);
    expect(many.message).toContain("and 7 more bad lines");
    expect((await failure(open(rowsFile(2), { keys: { ...defaultRecordKeys, label: "answer" } }))).message).toContain(
      'has no "answer", which --label-key asks for',
    );
    expect((await failure(open(fileOf(Buffer.from([0x22, 0xff, 0x22, 0x0a]))))).message).toContain("is not UTF-8");
  });

  it("refuses a 10 MB prompt by a named limit without holding it (J3), and reads lines that cross chunks", async () => {
    const long = JSON.stringify({ prompt: "x".repeat(10 * 1024 * 1024) });
    const error = await failure(open(fileOf(`{"prompt":"a"}\n${long}\n{"prompt":"b"}\n`)));
    expect(error.message).toContain(`:2: the line has ${long.length} bytes, more than lineBytesMax (${lineBytesMax})`);
    const wide = Array.from({ length: 5 }, (_, i) => `${i}${"é".repeat(400_000)}`);
    const source = await open(fileOf(wide.map((prompt) => JSON.stringify({ prompt })).join("\n")), { shuffle: false });
    expect((await source.take(5)).map((group) => group.prompt)).toEqual(wide);
  });

  it("names a missing file, a directory and formats it does not read", async () => {
    expect(await failure(open(join(directory, "none.jsonl")))).toMatchObject({
      code: "file.missing",
      details: { wanted: "--prompt-data" },
    });
    expect((await failure(open(join(directory, "x.parquet")))).message).toContain("convert it to JSONL");
    expect((await failure(open(join(directory, "x.txt")))).code).toBe("config.invalid");
  });

  it("will not resume on other data, and notices a file that changes under it", async () => {
    const path = rowsFile(3);
    const state = (await open(path)).state();
    for (const options of [{ seed: 1 }, { shuffle: false }])
      expect((await failure((await open(path, options)).restore(state))).code).toBe("data.invalid");
    expect((await failure((await open(rowsFile(4))).restore(state))).message).toContain("sha256");
    expect((await failure((await open(path)).restore({ version: 9 }))).message).toContain("holds no place");
    const source = await open(path);
    writeFileSync(path, "");
    expect((await failure(source.take(1))).message).toContain("changed while the run reads it");
    expect(source.state().offset).toBe(0);
  });

  it("loads an evaluation set in its own order under its own name", async () => {
    const set = await loadPromptSet("held", {
      path: `${rowsFile(6)}@[2:5]`,
      wanted: "--eval-prompt-data",
      applyChatTemplate: false,
      codec: null,
      promptTokensMax: null,
    });
    expect(set.map((group) => [group.instanceId, group.groupIndex, group.label])).toEqual([
      ["held:2", 0, "2"],
      ["held:3", 1, "3"],
      ["held:4", 2, "4"],
    ]);
  });
});
