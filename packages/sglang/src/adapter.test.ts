import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EngineSubject, engineConformance } from "@slime/backend/conformance";
import { silentLogger, systemClock } from "@slime/core";
import { probeCapabilities } from "./capabilities.js";
import { HttpServerEngineAdapter } from "./http-server-engine-adapter.js";
import {
  doubleHelper,
  doubleVocabulary,
  encodeDouble,
  SglangDouble,
  tinyWeights,
  writeTinyCheckpoint,
  writeTinyExport,
} from "./testing/index.js";

/** A double behind the adapter; weights come by the transport, from shared memory. */
async function subject(version: "0.5.15" | "0.5.23", transport: "tensor" | "disk"): Promise<EngineSubject> {
  const root = await mkdtemp(join(tmpdir(), "sglang-double-"));
  const double = await SglangDouble.start({ modelPath: await writeTinyCheckpoint(join(root, "model"), tinyWeights(1)), version });
  const engine = new HttpServerEngineAdapter({
    url: double.url,
    capabilities: await probeCapabilities(double.url),
    vocabularySize: doubleVocabulary,
    contextLength: double.contextLength,
    transport,
    helper: doubleHelper(),
    scratch: join(root, "scratch"),
    clock: systemClock,
    log: silentLogger,
    limits: { flushWaitMs: 1_000 },
  });
  return {
    engine,
    vocabulary: doubleVocabulary,
    contextLength: double.contextLength,
    longTokens: 80,
    encode: encodeDouble,
    weights: (v) => writeTinyExport(join(root, `weights-${v}.bin`), tinyWeights(v)),
    kill: async () => double.die("killed"),
    can: { seeds: false, spans: true, checksIds: true, keepsPrefixes: false, logProbDifferenceMax: 1e-9 },
    async [Symbol.asyncDispose]() {
      await engine.close();
      await double[Symbol.asyncDispose]();
      await rm(root, { recursive: true, force: true });
    },
  };
}

engineConformance("a double of SGLang 0.5.15, pushed by disk", () => subject("0.5.15", "disk"));
engineConformance("a double of SGLang 0.5.23, pushed by tensor", () => subject("0.5.23", "tensor"));
