import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ErrorCode, SlimeError, silentLogger, systemClock } from "@slime/core";
import { afterEach, describe, expect, it } from "vitest";
import { probeCapabilities } from "./capabilities.js";
import { HttpServerEngineAdapter } from "./http-server-engine-adapter.js";
import {
  doubleHelper,
  doubleVocabulary,
  type LethalStage,
  lethalCases,
  lethalRequest,
  rawCall,
  SglangDouble,
  tinyWeights,
  writeTinyCheckpoint,
} from "./testing/index.js";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function stage(version: "0.5.15" | "0.5.23"): Promise<LethalStage & { readonly double: SglangDouble }> {
  const root = await mkdtemp(join(tmpdir(), "lethal-"));
  const modelPath = await writeTinyCheckpoint(join(root, "model"), tinyWeights(1));
  const double = await SglangDouble.start({ modelPath, version, memorySaver: true, contextLength: 512, stepMs: 2 });
  const adapter = new HttpServerEngineAdapter({
    url: double.url,
    capabilities: await probeCapabilities(double.url),
    vocabularySize: doubleVocabulary,
    contextLength: double.contextLength,
    transport: "tensor",
    helper: doubleHelper(),
    clock: systemClock,
    log: silentLogger,
  });
  cleanups.push(
    () => rm(root, { recursive: true }),
    () => double[Symbol.asyncDispose](),
    () => adapter.close(),
  );
  return {
    url: double.url,
    version,
    modelPath,
    vocabulary: doubleVocabulary,
    longTokens: 200,
    silenceMs: 150,
    scratch: root,
    adapter,
    double,
  };
}

describe.each(["0.5.15", "0.5.23"] as const)("a server %s", (version) => {
  for (const { name, effect, raw, adapted, codes } of lethalCases) {
    it(`${name}: raw, it ${effect(version)}`, async () => {
      const on = await stage(version);
      await raw(on);
      expect(on.double.diedOf !== null).toBe(effect(version) === "dies");
      expect(on.double.scheduler.deadlocked).toBe(effect(version) === "hangs");
      if (effect(version) === "dies") expect(await rawCall(on.url, "/model_info", null)).toMatchObject({ status: 0 });
    });

    it(`${name}: through the adapter it is refused, and the server lives`, async () => {
      const on = await stage(version);
      const failure: unknown = await adapted(on).catch((error: unknown) => error);
      expect(SlimeError.isAny(failure) && codes.includes(failure.code as ErrorCode), String(failure)).toBe(true);
      expect(on.double.diedOf).toBeNull();
      expect(on.double.scheduler.deadlocked).toBe(false);
      const { state } = on.adapter;
      expect(state.kind).toBe("live");
      if (state.kind !== "live") return;
      if (state.released.length > 0) await on.adapter.resumeMemory(state.released);
      await on.adapter.abort({ all: true });
      await on.adapter.updateWeights({ version: 2, source: { kind: "directory", path: on.modelPath } }).catch(() => {});
      await on.adapter.resume();
      expect((await on.adapter.generate(lethalRequest(), { timeoutMs: 5_000 })).outputIds).toHaveLength(4);
    });
  }
});
