import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { batches, conformanceLoss, same, stepOf, type TrainerSubject, trainerConformance } from "./conformance/index.js";
import { type ScriptedGang, ScriptedGangs } from "./testing/index.js";

const python = spawnSync("python3", ["-c", "import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)"]).status === 0;
const op = (opId: string, timeoutMs = 30_000) => ({ opId, timeoutMs });

const gangs = new ScriptedGangs(2, 1_000);
afterAll(() => gangs.close());

async function start(): Promise<TrainerSubject & { readonly gang: ScriptedGang }> {
  const gang = await gangs.take();
  return {
    gang,
    trainer: gang.trainer,
    dataParallelSize: 2,
    pipelineSize: 2,
    vocabulary: 16,
    init: {
      hfCheckpoint: "none",
      fromScratch: true,
      seed: 3,
      load: null,
      refLoad: null,
      loss: conformanceLoss,
      optimizer: { lr: 0.5, lrWarmupSteps: 0, weightDecay: 0, adamBeta1: 0.9, adamBeta2: 0.999, adamEps: 1e-8, clipGrad: 1 },
    },
    failRank: (rank) => gang.ranks[rank]?.plan({ op: "trainStep", moment: "start", kind: "fail" }),
    [Symbol.asyncDispose]: () => gang[Symbol.asyncDispose](),
  };
}

describe.skipIf(!python)("scripted gang, pipeline 2 × data parallel 2 (needs Python ≥ 3.10)", () => {
  trainerConformance("scripted gang", start);

  it("a rank that dies in a step is named with how it died", async () => {
    await using subject = await start();
    await subject.trainer.init(op("i"), same(subject.init));
    subject.gang.ranks[1]?.plan({ op: "trainStep", moment: "start", kind: "die" });
    await expect(subject.trainer.trainStep(op("s"), stepOf(subject, batches(subject)))).rejects.toMatchObject({
      details: { failedRanks: [1] },
      cause: { code: "process.exited", details: { exitCode: 9 } },
    });
    await subject.gang.ranks[1]?.exited;
  });

  it("ranks that were told to stop half-way do the next operation right: what their peers had sent is not taken for it", async () => {
    await using subject = await start();
    await subject.trainer.init(op("i"), same(subject.init));
    const batch = batches(subject);
    // Rank = stage · 2 + replica.
    const requests = [...batch, ...batch].map((each) => ({ batch: each, tag: "actor" as const }));
    const values = (opId: string) => subject.trainer.computeLogProbs(op(opId), { kind: "each", requests });
    const before = await values("l1");
    subject.gang.ranks[3]?.plan({ op: "trainStep", moment: "start", kind: "fail" });
    // Other rows than those whose log-probs are asked for: their activations stay unread in the socket of rank 3.
    await expect(subject.trainer.trainStep(op("s"), stepOf(subject, [...batch].reverse()))).rejects.toMatchObject({
      details: { failedRanks: [3] },
    });
    expect(await values("l2")).toEqual(before);
  });

  it("B3: a rank that hangs is named once the deadline and the grace have passed", async () => {
    await using subject = await start();
    await subject.trainer.init(op("i"), same(subject.init));
    subject.gang.ranks[2]?.plan({ op: "trainStep", moment: "start", kind: "hang" });
    await expect(subject.trainer.trainStep(op("s", 300), stepOf(subject, batches(subject)))).rejects.toMatchObject({
      message: expect.stringContaining("rank 2 of 4 did not answer"),
      cause: { code: "call.deadline" },
    });
  });

  it("an answer that comes late or twice changes nothing", async () => {
    await using subject = await start();
    const { ranks } = subject.gang;
    await subject.trainer.init(op("i"), same(subject.init));
    ranks[0]?.plan({ op: "trainStep", moment: "answer", kind: "twice" });
    const first = await subject.trainer.trainStep(op("a"), stepOf(subject, batches(subject)));
    ranks[3]?.plan({ op: "trainStep", moment: "answer", kind: "late" });
    await expect(subject.trainer.trainStep(op("b", 300), stepOf(subject, batches(subject)))).rejects.toMatchObject({
      details: { failedRanks: [3] },
    });
    ranks[3]?.release();
    // The step was applied everywhere; asking again with the same opId says so, and nothing was applied twice.
    const second = await subject.trainer.trainStep(op("b"), stepOf(subject, batches(subject)));
    expect([first[0]?.value.step, second[0]?.value.step]).toEqual([1, 2]);
    expect(second.map(({ value }) => value)).toEqual(Array(4).fill(expect.objectContaining({ metrics: second[0]?.value.metrics })));
    expect(ranks[0]?.strayAnswers).toBe(1);
  });

  it("a push that breaks half-way fails, names the rank, and can be made again by a new gang", async () => {
    const directory = mkdtempSync(join(tmpdir(), "slime-push-"));
    await using subject = await start();
    await subject.trainer.init(op("i"), same(subject.init));
    const whole = await subject.trainer.exportWeights(op("w"), same({ version: 1, directory }));
    expect(whole.map(({ value }) => value !== null)).toEqual([true, false, true, false]);
    subject.gang.ranks[2]?.plan({ op: "exportWeights", moment: "half", kind: "die" });
    await expect(subject.trainer.exportWeights(op("x"), same({ version: 2, directory }))).rejects.toMatchObject({
      details: { failedRanks: [2] },
    });
    await using other = await start();
    await other.trainer.init(op("i"), same(other.init));
    const again = await other.trainer.exportWeights(op("x"), same({ version: 2, directory }));
    expect(again.map(({ value }) => value?.checksum)).toEqual(whole.map(({ value }) => value?.checksum));
    rmSync(directory, { recursive: true });
  });
});
