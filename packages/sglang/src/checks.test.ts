import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isOlder } from "./capabilities.js";
import { checkpointShapes, hasTiedHead, shapeProblem } from "./checkpoint-shapes.js";
import { checkRequest } from "./request-check.js";
import { lethalRequest, tinyShapes, tinyWeights, transposedCopy, writeTinyCheckpoint, writeTinyExport } from "./testing/index.js";
import { WeightCrossings } from "./weight-crossings.js";
import { bucketsOf, exportProblem, tensorBytes, writeModelDirectory } from "./weight-source.js";

let root: string;
let model: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "checks-"));
  model = await writeTinyCheckpoint(join(root, "model"), tinyWeights(1));
});
afterAll(() => rm(root, { recursive: true }));

describe("requests", () => {
  const bounds = { vocabularySize: 64, contextLength: 32 };
  const check = (params: object, fields: object = {}) => checkRequest("http://e", lethalRequest(params, fields), bounds);
  const bad: readonly (readonly [string, object, object, RegExp])[] = [
    ["an id beyond the vocabulary", {}, { input_ids: [63, 64] }, /input_ids\[1\] is 64.*0 to 63/],
    ["a negative id", {}, { input_ids: [-1] }, /-1/],
    ["half an id", {}, { input_ids: [0.5] }, /0\.5/],
    ["a stop id beyond the vocabulary", { stop_token_ids: [64] }, {}, /stop_token_ids\[0\]/],
    ["no prompt", {}, { input_ids: [] }, /empty/],
    ["an unknown parameter", { temperatur: 1 }, {}, /temperatur/],
    ["a prompt beyond the context", {}, { input_ids: Array(33).fill(1) }, /33 tokens/],
    ["too many new tokens", { max_new_tokens: 30 }, {}, /max_new_tokens 30/],
    ["more tokens at least than at most", { min_new_tokens: 5 }, {}, /min_new_tokens/],
  ];
  it.each(bad)("%s is refused", (_name, params, fields, words) => {
    expect(() => check(params, fields)).toThrow(
      expect.objectContaining({ code: "engine.refused", message: expect.stringMatching(words) as string }),
    );
  });
  it("what fits passes", () => {
    check({ max_new_tokens: 29, min_new_tokens: 1, stop_token_ids: [63], sampling_seed: 3 });
  });
});

describe("checkpoints", () => {
  it("shapes come from headers", async () => {
    expect([...(await checkpointShapes(model))]).toEqual(tinyShapes.map(([name, shape]) => [name, shape]));
    expect(await hasTiedHead(model)).toBe(false);
  });

  const shapes = new Map(tinyShapes);
  const without = (name: string) => new Map([...shapes].filter(([key]) => key !== name));
  const problems: readonly (readonly [string, ReadonlyMap<string, readonly number[]>, boolean, RegExp | null])[] = [
    ["equal", shapes, false, null],
    ["another shape", new Map([...shapes, ["model.norm.weight", [9]]]), false, /model\.norm\.weight is \[9\], the model's \[8\]/],
    ["an unknown name", new Map([...shapes, ["model.nonsense", [1]]]), false, /has no model\.nonsense/],
    ["a missing one", without("model.norm.weight"), false, /model\.norm\.weight is missing/],
    ["no head", without("lm_head.weight"), false, /lm_head/],
    ["no head, tied", without("lm_head.weight"), true, null],
  ];
  it.each(problems)("%s", (_name, given, tied, words) => {
    const problem = shapeProblem(shapes, given, tied);
    if (words === null) expect(problem).toBeNull();
    else expect(problem).toMatch(words);
  });

  it("a checkpoint turned on its side is another's", async () => {
    const other = await checkpointShapes(await transposedCopy(model, join(root, "transposed")));
    expect(shapeProblem(shapes, other, false)).toMatch(/is \[8, 64\], the model's \[64, 8\]/);
  });

  it("broken files are named", async () => {
    await writeFile(join(root, "broken.safetensors"), "nonsense that is no header");
    await expect(checkpointShapes(root)).rejects.toMatchObject({
      code: "checkpoint.invalid",
      message: expect.stringContaining("broken.safetensors") as string,
    });
    await expect(checkpointShapes(join(root, "nowhere"))).rejects.toMatchObject({ code: "file.missing" });
  });

  it("an export written as a directory holds the same bytes", async () => {
    const weights = tinyWeights(4);
    const source = await writeTinyExport(join(root, "export.bin"), weights);
    await writeModelDirectory(join(root, "written"), model, source);
    const direct = await writeTinyCheckpoint(join(root, "direct"), weights);
    const { readFile } = await import("node:fs/promises");
    expect(await readFile(join(root, "written", "model.safetensors"))).toEqual(await readFile(join(direct, "model.safetensors")));
    expect(await exportProblem(source)).toBeNull();
    expect(await exportProblem({ ...source, bytes: source.bytes + 4 })).toMatch(/bytes/);
    expect(await exportProblem({ ...source, bytes: source.bytes - 4 })).toMatch(/does not lie within/);
    expect(await exportProblem({ ...source, checksum: "0".repeat(16) })).toMatch(/checksum/);
    expect(await exportProblem({ ...source, path: join(root, "gone") })).toMatch(/not there/);
  });
});

describe("buckets", () => {
  it("B1, B2: each tensor once, within its bucket, none above the limit but a single tensor", () => {
    const sizes = fc.array(fc.record({ numbers: fc.integer({ min: 1, max: 40 }), gap: fc.integer({ min: 0, max: 3 }) }), {
      minLength: 1,
      maxLength: 30,
    });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 4, max: 200 }), (list, bytesMax) => {
        let at = 0;
        const tensors = list.map(({ numbers, gap }, i) => {
          const offset = at + gap * 4;
          at = offset + numbers * 4;
          return { name: `t${i}`, shape: [numbers], offset };
        });
        const buckets = bucketsOf([...tensors].reverse(), bytesMax);
        expect(buckets.flatMap((bucket) => bucket.tensors.map(({ name }) => name)).sort()).toEqual(tensors.map(({ name }) => name).sort());
        for (const bucket of buckets) {
          for (const tensor of bucket.tensors) {
            expect(tensor.offset).toBeGreaterThanOrEqual(bucket.from);
            expect(tensor.offset + tensorBytes(tensor)).toBeLessThanOrEqual(bucket.to);
          }
          if (bucket.tensors.length > 1) expect(bucket.to - bucket.from).toBeLessThanOrEqual(bytesMax);
        }
      }),
    );
  });
});

describe("crossings", () => {
  it("X1: only pushes under a pause that holds requests are crossed", () => {
    const crossings = new WeightCrossings(false);
    const mark = crossings.mark;
    for (const pause of [null, "abort"] as const) {
      crossings.begin(pause, 1);
      crossings.end(pause);
    }
    expect(crossings.crossed(mark)).toBe(false);
    crossings.begin("retract", 2);
    expect([crossings.crossed(mark), crossings.crossed(crossings.mark)]).toEqual([true, true]);
    crossings.end("retract");
    expect([crossings.crossed(mark), crossings.crossed(crossings.mark)]).toEqual([true, false]);
  });

  it("X2: computed ahead, the first token after a push in place is mixed", () => {
    const spans = [
      { version: 1, from: 0, to: 5, mixed: false },
      { version: 2, from: 5, to: 9, mixed: false },
    ];
    const crossings = new WeightCrossings(true);
    expect(crossings.soften(spans)).toEqual(spans);
    crossings.begin("in_place", 2);
    expect(crossings.soften(spans)).toEqual([
      { version: 1, from: 0, to: 5, mixed: false },
      { version: 1, from: 5, to: 6, mixed: true },
      { version: 2, from: 6, to: 9, mixed: false },
    ]);
    expect(new WeightCrossings(false).soften(spans)).toEqual(spans);
  });
});

const versions: readonly (readonly [string, string, boolean])[] = [
  ["0.5.15", "0.5.23", true],
  ["0.5.23", "0.5.23", false],
  ["0.5.15.post1", "0.5.15", false],
  ["0.6.0", "0.5.23", false],
  ["0.5.9", "0.5.23", true],
];
it.each(versions)("%s is older than %s: %s", (version, than, older) => {
  expect(isOlder(version, than)).toBe(older);
});
