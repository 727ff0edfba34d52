import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { engineConformance } from "@slime/backend/conformance";
import { silentLogger, systemClock } from "@slime/core";
import { readTokenizer } from "@slime/embedded";
import { HttpServerEngineAdapter, probeCapabilities, startWeightHelper } from "@slime/sglang";
import { realEnv } from "./real-env.js";
import { logFolder, startRealServer } from "./real-server.js";
import { versionedWeights } from "./tiny-weights.js";

const logs = logFolder();
const { sglang, models, python, env } = realEnv();

engineConformance(`SGLang ${sglang}, pushed to by tensor and by disk in turns`, async () => {
  const model = models.tinyQwen3;
  const folder = await mkdtemp(join(tmpdir(), "slime-real-"));
  const { config, asDirectory, asSharedMemory } = await versionedWeights(model, folder);
  const tokenizer = await readTokenizer(model);
  const server = await startRealServer({ model, logs });
  const capabilities = await probeCapabilities(server.url);
  const inherited = Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value] as const]));
  const helper = startWeightHelper({
    python,
    env: { ...Object.fromEntries(inherited), ...env },
    logFile: join(logs, "weight-helper.log"),
    log: silentLogger,
  });
  const engine = new HttpServerEngineAdapter({
    url: server.url,
    capabilities,
    vocabularySize: config.vocabSize,
    contextLength: config.positionsMax,
    transport: "tensor",
    helper,
    clock: systemClock,
    log: silentLogger,
  });
  return {
    engine,
    vocabulary: config.vocabSize,
    contextLength: config.positionsMax,
    longTokens: 200,
    encode: tokenizer?.encode ?? null,
    weights: (version) => (version % 2 === 0 ? asSharedMemory(version) : asDirectory(version)),
    kill: server.kill,
    can: {
      seeds: capabilities.deterministic,
      spans: capabilities.weightSpans,
      checksIds: true,
      keepsPrefixes: true,
      logProbDifferenceMax: 1e-4,
    },
    async [Symbol.asyncDispose]() {
      await server.kill();
      await engine.close();
      await helper.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
});
