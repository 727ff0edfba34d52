import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { batches, conformanceLoss, same, stepOf } from "@slime/backend/conformance";
import { ScriptedGangs } from "@slime/backend/testing";
import { SlimeError } from "@slime/core";
import { op, type PushBackend } from "./push-subject.js";
import { ScriptedEngine, scriptedChecksum, scriptedVocabulary } from "./scripted-engine.js";

const optimizer = { lr: 0.5, lrWarmupSteps: 0, weightDecay: 0, adamBeta1: 0.9, adamBeta2: 0.999, adamEps: 1e-8, clipGrad: 1 };

/** Closed by the test file. */
export const scriptedGangs = new ScriptedGangs(2, 1_000);

/** The scripted gang (Python, pipeline 2 × data parallel 2) and engines in memory that hold its model. */
export const scriptedPush: PushBackend = {
  longTokens: 64,
  logProbDifferenceMax: 1e-6,
  async startTrainer(folder, load) {
    const gang = await scriptedGangs.take();
    const { trainer, ranks } = gang;
    await trainer.init(
      op(),
      same({ hfCheckpoint: "none", fromScratch: true, seed: 3, load, refLoad: null, loss: conformanceLoss, optimizer }),
    );
    const shape = { dataParallelSize: 2, pipelineSize: 2, vocabulary: scriptedVocabulary };
    return {
      trainer,
      async train(op) {
        await trainer.trainStep(op, stepOf({ ...shape, trainer }, batches(shape)));
      },
      breakExport: () => ranks[2]?.plan({ op: "exportWeights", moment: "half", kind: "die" }),
      async merge(parts, version) {
        const pieces = await Promise.all(
          parts.map(async ({ path, bytes, checksum }) => {
            const piece = await readFile(path);
            const found = scriptedChecksum(piece);
            if (found === checksum && piece.length === bytes) return piece;
            throw new SlimeError("weights.mismatch", `${path} is not what its rank said`, {
              engine: "none",
              version,
              reason: `checksum ${found} instead of ${checksum}`,
            });
          }),
        );
        const whole = Buffer.concat(pieces);
        const path = join(folder, `scripted-v${version}`);
        await writeFile(path, whole);
        return {
          kind: "shared-memory",
          path,
          bytes: whole.length,
          checksum: scriptedChecksum(whole),
          tensors: parts.flatMap(({ tensors }) => tensors),
        };
      },
      close: async () => gang[Symbol.asyncDispose](),
    };
  },
  async startEngine(id) {
    const engine = new ScriptedEngine(`memory:${id}`);
    return { engine, close: () => engine.close() };
  },
};
