import { rm } from "node:fs/promises";
import { type Collective, gangOf } from "@slime/backend";
import { conformanceLoss, type TrainerSubject, trainerConformance } from "@slime/backend/conformance";
import { systemClock } from "@slime/core";
import { memoryCollectives } from "./collective.js";
import { defaultOptimizer, modelDirectory, tinyConfig, tinyLlamaConfig } from "./testing/index.js";
import { EmbeddedTrainer } from "./trainer.js";

/** A gang of embedded ranks in this process; a rank told to fail does so where ranks meet. */
async function gang(size: number, config = tinyConfig({ vocabSize: 32, initStd: 0.1 })): Promise<TrainerSubject> {
  const { root, model } = await modelDirectory(config);
  const failing = new Set<number>();
  const ranks = memoryCollectives(size).map((collective) => {
    const faulty: Collective = {
      ...collective,
      allReduceSum(key, values, signal) {
        if (failing.delete(collective.rank)) return Promise.reject(new Error("this rank was told to fail"));
        return collective.allReduceSum(key, values, signal);
      },
    };
    return new EmbeddedTrainer({ collective: faulty });
  });
  const trainer = gangOf(ranks, systemClock);
  return {
    trainer,
    dataParallelSize: size,
    pipelineSize: 1,
    init: {
      hfCheckpoint: model,
      fromScratch: true,
      seed: 3,
      load: null,
      refLoad: model,
      loss: conformanceLoss,
      optimizer: defaultOptimizer,
    },
    vocabulary: config.vocabSize,
    failRank: size === 1 ? null : (rank) => failing.add(rank),
    async [Symbol.asyncDispose]() {
      await trainer.close();
      await rm(root, { recursive: true, force: true });
    },
  };
}

trainerConformance("embedded, one rank", () => gang(1));
trainerConformance("embedded, data parallel 2", () => gang(2));
trainerConformance("embedded, Llama", () => gang(1, tinyLlamaConfig({ vocabSize: 32, initStd: 0.1 })));
