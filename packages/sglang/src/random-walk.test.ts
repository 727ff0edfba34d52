import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError, silentLogger, systemClock } from "@slime/core";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { probeCapabilities } from "./capabilities.js";
import { describeState, memoryTags } from "./engine-state.js";
import { HttpServerEngineAdapter } from "./http-server-engine-adapter.js";
import {
  doubleHelper,
  doubleVocabulary,
  lethalRequest,
  rawCall,
  SglangDouble,
  tinyWeights,
  transposedCopy,
  writeTinyCheckpoint,
  writeTinyExport,
} from "./testing/index.js";
import type { SharedWeights } from "./weight-source.js";

let root: string;
let modelPath: string;
let wrong: string;
let source: SharedWeights;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "walk-"));
  modelPath = await writeTinyCheckpoint(join(root, "model"), tinyWeights(1));
  wrong = await transposedCopy(modelPath, join(root, "wrong"));
  source = await writeTinyExport(join(root, "weights.bin"), tinyWeights(2));
});
afterAll(() => rm(root, { recursive: true }));

type Step = (adapter: HttpServerEngineAdapter, url: string) => Promise<unknown>;
const soonMs = { timeoutMs: 15 };

const pauses = (["abort", "retract", "in_place"] as const).map(
  (mode): Step =>
    (adapter) =>
      adapter.pause(mode),
);
const generate: Step = (adapter) => adapter.generate(lethalRequest(), soonMs);
const single: readonly Step[] = [
  generate,
  (adapter) => adapter.generate(lethalRequest({}, { input_ids: [doubleVocabulary] }), soonMs),
  (adapter) => adapter.resume(),
  (adapter) => adapter.flush(),
  (adapter) => adapter.abort({ all: true }),
  (adapter) => adapter.health(15),
  (adapter) => adapter.checkWeights("checksum"),
  (adapter) => adapter.load(),
  (adapter) => adapter.updateWeights({ version: 3, source }),
  (adapter) => adapter.updateWeights({ version: 4, source: { kind: "directory", path: modelPath } }),
  (adapter) => adapter.updateWeights({ version: 5, source: { kind: "directory", path: wrong } }),
  (adapter) => adapter.updateFromGroup("g", [], 6),
  (adapter) => adapter.leaveUpdateGroup("g"),
  // Somebody else's, past the adapter: it runs, or waits behind a pause until it leaves.
  async (_adapter, url) => void rawCall(url, "/generate", lethalRequest({ max_new_tokens: 20 }), 60),
];
const memory = fc.record({ tags: fc.subarray([...memoryTags]), back: fc.boolean() }).map(
  ({ tags, back }): Step =>
    (adapter) =>
      back ? adapter.resumeMemory(tags) : adapter.release(tags),
);
/** Into released memory, which chance alone seldom finds. */
const away: readonly Step[] = [(adapter) => adapter.pause("abort"), (adapter) => adapter.flush(), (adapter) => adapter.release()];
const step = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...single, ...pauses).map((each) => [each]) },
  { weight: 2, arbitrary: memory.map((each) => [each]) },
  { weight: 1, arbitrary: fc.constant(away) },
);

it.each(["0.5.15", "0.5.23"] as const)("whatever is asked of the adapter, a server %s lives", async (version) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      await using double = await SglangDouble.start({ modelPath, version, memorySaver: true });
      const adapter = new HttpServerEngineAdapter({
        url: double.url,
        capabilities: await probeCapabilities(double.url),
        vocabularySize: doubleVocabulary,
        contextLength: double.contextLength,
        transport: "tensor",
        helper: doubleHelper(),
        clock: systemClock,
        log: silentLogger,
        limits: { flushWaitMs: 50, bucketBytesMax: 4_096 },
      });
      for (const each of steps.flat()) {
        const before = describeState(adapter.state);
        const failure: unknown = await each(adapter, double.url).then(
          () => null,
          (error: unknown) => error,
        );
        expect(failure === null || SlimeError.isAny(failure), String(failure)).toBe(true);
        expect([double.diedOf, double.scheduler.deadlocked, adapter.state.kind], before).toEqual([null, false, "live"]);
      }
      await adapter.close();
    }),
    { numRuns: 25 },
  );
});
