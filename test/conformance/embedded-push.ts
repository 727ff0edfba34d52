import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gangOf, type TrainerRank } from "@slime/backend";
import { batches, conformanceLoss, same, stepOf } from "@slime/backend/conformance";
import { invariant, systemClock } from "@slime/core";
import { EmbeddedTrainer, memoryCollectives, startEmbeddedEngine } from "@slime/embedded";
import { defaultOptimizer, modelDirectory, roughWeights } from "@slime/embedded/testing";
import { HttpEngine } from "@slime/router";
import { died, op, type PushBackend } from "./push-subject.js";
import { letterModel, letterTokenizer } from "./tiny-model.js";

/** The embedded trainer, data parallel 2, and embedded engines over HTTP. */
export const embeddedPush: PushBackend = {
  longTokens: 400,
  logProbDifferenceMax: 1e-6,
  async startTrainer(_folder, load) {
    const { root, model } = await modelDirectory({ ...letterModel, initStd: 0.3 });
    let breaks = false;
    const ranks = memoryCollectives(2).map((collective): TrainerRank => {
      const rank = new EmbeddedTrainer({ collective });
      const exportWeights: TrainerRank["exportWeights"] = async (op, request) => {
        if (!breaks || collective.rank !== 0) return rank.exportWeights(op, request);
        await writeFile(join(request.directory, `weights-${request.version}.bin`), new Uint8Array(64));
        throw died("rank 0");
      };
      return new Proxy<TrainerRank>(rank, {
        get: (target, name) =>
          name === "exportWeights" ? exportWeights : ((Reflect.get(target, name) as () => unknown).bind(target) as unknown),
      });
    });
    const trainer = gangOf(ranks, systemClock, 200);
    const init = {
      hfCheckpoint: model,
      fromScratch: true,
      seed: 3,
      load,
      refLoad: null,
      loss: conformanceLoss,
      optimizer: { ...defaultOptimizer, lr: 0.02 },
    };
    await trainer.init(op(), same(init));
    const shape = { dataParallelSize: 2, pipelineSize: 1, vocabulary: letterModel.vocabSize };
    return {
      trainer,
      async train(op) {
        await trainer.trainStep(op, stepOf({ ...shape, trainer }, batches(shape)));
      },
      breakExport() {
        breaks = true;
      },
      async merge([whole]) {
        invariant(whole !== undefined, "rank 0 exports all weights");
        return whole;
      },
      async close() {
        await trainer.close();
        await rm(root, { recursive: true, force: true });
      },
    };
  },
  async startEngine(_id, url) {
    const server = await startEmbeddedEngine({
      model: { kind: "given", config: letterModel, weights: roughWeights(letterModel, 5), tokenizer: letterTokenizer },
      port: url === null ? 0 : Number(new URL(url).port),
      limits: { closeMs: 1, kvTokensMax: 2_048, runningMax: 4, stepRowsMax: 64 },
    });
    const engine = new HttpEngine(server.url);
    return {
      engine,
      async close() {
        await engine.close();
        await server.close();
      },
    };
  },
};
