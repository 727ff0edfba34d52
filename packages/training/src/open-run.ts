import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { type Clock, type Logger, SlimeError } from "@slime/core";
import { type Ledger, openLedger } from "@slime/data";
import { loopLength, type RunConfig } from "@slime/rl-config";
import type { Manifest } from "./manifest.js";
import { diskFull } from "./run-context.js";
import {
  fileStorage,
  lockRun,
  madeDirectory,
  type RunOwner,
  type RunPaths,
  readCheckpoints,
  removeEmpty,
  removeUnbegun,
  runPaths,
  verifyFiles,
} from "./run-directory.js";
import { keepRunRecord, readRunRecord } from "./run-record.js";
import type { MetricSink, RunStorage, SpanSink, StoredCheckpoint } from "./run-records.js";
import { type RunSettings, runSettings } from "./run-settings.js";
import { metricsFile, spansFile } from "./sinks.js";

export interface OpenRunInput {
  readonly config: RunConfig;
  /** Absolute. */
  readonly root: string;
  /** Of a new run; an existing directory keeps its own. */
  readonly runId: string;
  /** Prompts of one epoch, for runs whose length is in epochs. */
  readonly prompts: number;
  readonly owner: RunOwner;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * A run directory that is ours: everything of `RunPorts` that is files. Disposing gives it back; one that was made for a run which never
 * began (no journal) is removed again, so that nothing half-written stays behind a wrong flag or a cluster that is too small.
 */
export interface OpenedRun extends AsyncDisposable {
  readonly runId: string;
  readonly config: RunConfig;
  readonly settings: RunSettings;
  readonly paths: RunPaths;
  readonly storage: RunStorage;
  readonly ledger: Ledger;
  readonly metrics: MetricSink;
  readonly spans: SpanSink;
  /** From `--load`; read only when the run has no checkpoint of its own. */
  readonly load: StoredCheckpoint | undefined;
  readonly verify: (checkpoint: StoredCheckpoint, manifest: Manifest) => Promise<void>;
}

/**
 * Takes or makes the run directory.
 * @throws `state.locked`, `config.invalid` (the directory belongs to another configuration; fewer prompts than one rollout),
 * `not_found` (`--load` without a checkpoint), `journal.unreadable`, `state.damaged`, `disk.full`.
 */
export async function openRun(input: OpenRunInput): Promise<OpenedRun> {
  const { config, clock, log } = input;
  const length = loopLength(config, input.prompts);
  if (config.numRollout === null && length.rollouts === 0) {
    const issue = `${config.promptData} has ${input.prompts} prompts, fewer than one rollout takes (--rollout-batch-size ${config.rolloutBatchSize})`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  const paths = runPaths(input.root, config.save);
  const made = await madeDirectory(paths).catch((error: unknown) => {
    throw diskFull(error, paths.root);
  });
  let lock: AsyncDisposable | null = null;
  let isNew = false;
  const close = async () => {
    if (isNew) await removeUnbegun(paths);
    await lock?.[Symbol.asyncDispose]();
    if (made !== null) await removeEmpty(paths.root, made);
  };
  try {
    lock = await lockRun(paths, input.owner);
    isNew = (await readRunRecord(paths.runJson)) === null;
    const load = config.load === null ? undefined : await checkpointBelow(resolve(config.load));
    const record = await keepRunRecord(paths.runJson, { runId: input.runId, config, rollouts: length.rollouts, nowMs: clock.wallMs() });
    const ledger = await openLedger(paths.ledger, { clock });
    return {
      runId: record.runId,
      config,
      settings: runSettings(config, { runId: record.runId, length, samplesRoot: paths.samples }),
      paths,
      storage: fileStorage(paths),
      ledger,
      metrics: metricsFile(paths.metrics, { clock, log }),
      spans: spansFile(paths.spans, { log }),
      load,
      verify: (checkpoint, manifest) => verifyFiles(checkpoint.directory, manifest.files),
      async [Symbol.asyncDispose]() {
        await ledger.close();
        await close();
      },
    };
  } catch (error) {
    await close();
    throw diskFull(error, paths.root);
  }
}

/** The newest checkpoint of a run directory, of a directory of checkpoints, or the one this directory is. */
export async function checkpointBelow(directory: string): Promise<StoredCheckpoint> {
  const isOne = await stat(join(directory, "manifest.json")).then(
    (found) => found.isFile(),
    () => false,
  );
  const found = isOne
    ? (await readCheckpoints(join(directory, ".."))).filter(({ name }) => name === basename(directory))
    : [...(await readCheckpoints(directory)), ...(await readCheckpoints(join(directory, "checkpoints")))];
  const newest = found.at(-1);
  if (newest === undefined)
    throw new SlimeError(
      "not_found",
      `--load ${directory}: no checkpoint there (looked for step-NNNNNNN/manifest.json, also below checkpoints/)`,
      { kind: "checkpoint", id: directory },
    );
  return newest;
}
