import { seededRandom } from "@slime/core";
import { readLedger } from "@slime/data";
import type { AppliedStep } from "../applied-record.js";
import type { Finding } from "../audit.js";
import { compareRecords } from "../audit.js";
import type { LoopConfig } from "../loop-state.js";
import { decodeManifest } from "../manifest.js";
import type { RunSettings } from "../run-settings.js";
import { runLoop } from "../run-shell.js";
import type { RunSummary } from "../run-summary.js";
import type { SimDisk } from "./sim-storage.js";
import { type SimOptions, SimWorld, simDefaults, simSamplesPerGroup, simSource } from "./sim-world.js";

/** A small run: 2 groups of 2 samples per rollout, one optimizer step each. */
export function simSettings(loop: Partial<LoopConfig> = {}, more: Partial<RunSettings> = {}): RunSettings {
  return {
    runId: "run",
    loop: {
      mode: "sync",
      rollouts: 5,
      rolloutsPerEpoch: null,
      saveInterval: 2,
      evalInterval: null,
      evalBeforeTrain: false,
      bufferSize: 1,
      pushInterval: 1,
      waitForLag: null,
      trainerRestartsMax: 3,
      ...loop,
    },
    generation: {
      groups: 2,
      samplesPerGroup: simSamplesPerGroup,
      firstWave: 2,
      sampling: { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: 4 },
      samplingSeed: null,
      dropZeroStd: false,
      failedShareMax: 0.01,
      samplesRoot: null,
    },
    batch: {
      estimator: "grpo",
      rewardsNormalization: true,
      grpoStdNormalization: true,
      globalBatchSize: 4,
      dataParallelSize: 1,
      packing: { kind: "static", microBatchSize: 2 },
      balanceData: false,
    },
    pauseMode: loop.mode === "async" ? "retract" : "abort",
    temperature: 1,
    canaryTolerance: 0.01,
    staleness: null,
    needOldLogProbs: false,
    needRefLogProbs: false,
    refUpdateInterval: null,
    rolloutGpus: 1,
    checkpointsKept: 3,
    stallMs: 60_000,
    evalSamplingSeed: null,
    ...more,
  };
}

export interface SimAttempt {
  readonly world: SimWorld;
  readonly outcome: RunSummary | "dead";
}

/** One driver on this disk, to its end or its death. `during` makes trouble while it runs. */
export async function simAttempt(
  disk: SimDisk,
  settings: RunSettings,
  options: Partial<SimOptions> = {},
  during: (world: SimWorld) => void = () => {},
  signal?: AbortSignal,
): Promise<SimAttempt> {
  const world = new SimWorld(disk, { ...simDefaults, ...options });
  during(world);
  const run = world.ports().then((ports) => runLoop(ports, settings, { random: seededRandom(1), signal, verify: async () => {} }));
  run.catch(() => {});
  return { world, outcome: await world.until(run) };
}

/** The audit over a simulated disk: newest checkpoint, ledger file, and the order of the data. */
export async function simAudit(disk: SimDisk, options: Partial<SimOptions> = {}): Promise<readonly Finding[]> {
  const newest = [...disk.checkpoints].sort(([a], [b]) => (a < b ? -1 : 1)).at(-1);
  if (newest === undefined) return [{ kind: "lost", instanceId: "all", message: "there is no checkpoint" }];
  const manifest = decodeManifest(newest[1].manifest, newest[0]);
  const applied = (newest[1].files.get("applied-00000.jsonl") ?? "")
    .split("\n")
    .flatMap((line) => (line === "" ? [] : [JSON.parse(line) as AppliedStep]));
  const { epoch, offset } = manifest.cursor as { readonly epoch: number; readonly offset: number };
  const source = simSource({ ...simDefaults, ...options }.prompts);
  const issued = (await source.take(epoch * source.size + offset)).map((group) => group.instanceId);
  const { state } = readLedger(disk.ledger.bytes, "ledger");
  return compareRecords({
    issued,
    ledger: new Map(state.entries()),
    applied,
    pending: new Set(manifest.pending.map((group) => group.instanceId)),
    trained: manifest.trained,
    samplesPerGroup: simSamplesPerGroup,
  });
}
