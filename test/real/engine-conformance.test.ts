import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { engineConformance } from "@slime/backend/conformance";
import { readTokenizer } from "@slime/embedded";
import { HttpEngine } from "@slime/router";
import { realEnv } from "./real-env.js";
import { logFolder, startRealServer } from "./real-server.js";
import { versionedWeights } from "./tiny-weights.js";

const logs = logFolder();
const { sglang, models } = realEnv();

engineConformance(`SGLang ${sglang}`, async () => {
  const model = models.tinyQwen3;
  const folder = await mkdtemp(join(tmpdir(), "slime-real-"));
  const { config, asDirectory } = await versionedWeights(model, folder);
  const tokenizer = await readTokenizer(model);
  const server = await startRealServer({ model, logs });
  const engine = new HttpEngine(server.url);
  return {
    engine,
    vocabulary: config.vocabSize,
    contextLength: config.positionsMax,
    longTokens: 200,
    encode: tokenizer?.encode ?? null,
    weights: asDirectory,
    kill: server.kill,
    can: { seeds: false, spans: false, checksIds: false, logProbDifferenceMax: 1e-4 },
    async [Symbol.asyncDispose]() {
      await server.kill();
      await engine.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
});
