import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EngineSubject, engineConformance } from "@slime/backend/conformance";
import { startEmbeddedEngine } from "@slime/embedded";
import { roughWeights } from "@slime/embedded/testing";
import { HttpEngine } from "@slime/router";
import { checksumOf, letterModel, letterTokenizer } from "./tiny-model.js";

async function start(): Promise<EngineSubject> {
  const folder = await mkdtemp(join(tmpdir(), "slime-conformance-"));
  const server = await startEmbeddedEngine({
    model: { kind: "given", config: letterModel, weights: roughWeights(letterModel, 5), tokenizer: letterTokenizer },
  });
  const engine = new HttpEngine(server.url);
  return {
    engine,
    vocabulary: letterModel.vocabSize,
    contextLength: letterModel.positionsMax,
    longTokens: 400,
    encode: letterTokenizer.encode,
    weights: async (version) => {
      const weights = roughWeights(letterModel, version);
      const path = join(folder, `weights-${version}.bin`);
      await writeFile(path, new Uint8Array(weights.buffer));
      return { kind: "shared-memory", path, bytes: weights.byteLength, checksum: checksumOf(weights), tensors: [] };
    },
    kill: server.close,
    can: { seeds: true, spans: true, checksIds: true, keepsPrefixes: false, logProbDifferenceMax: 1e-6 },
    async [Symbol.asyncDispose]() {
      await server.close();
      await engine.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

engineConformance("embedded", start);
