/** `run.json`: what a run is, written before anything else of it, so that whoever finds the directory can tell. */
import { readFile } from "node:fs/promises";
import { SlimeError } from "@slime/core";
import { type Derived, derive, type RunConfig } from "@slime/rl-config";
import { writeFileAtomic } from "./run-directory.js";

export const runFormat = { format: "slime.run", version: 1 } as const;

export interface RunRecord {
  readonly format: typeof runFormat.format;
  readonly version: typeof runFormat.version;
  readonly runId: string;
  readonly config: RunConfig;
  readonly derived: Derived;
  /** Rollouts of the whole run. */
  readonly rollouts: number;
  readonly createdAtMs: number;
}

/** A resumed run must mean the same by these, or its cursor, its ledger and its weights would not fit together. */
const fixedKeys = [
  "mode",
  "trainBackend",
  "promptData",
  "inputKey",
  "applyChatTemplate",
  "rolloutShuffle",
  "rolloutSeed",
  "rolloutMaxPromptLen",
  "nSamplesPerPrompt",
  "hfCheckpoint",
] as const satisfies readonly (keyof RunConfig)[];

/** Null when there is none. @throws `state.damaged`, or `journal.unreadable` for a newer format. */
export async function readRunRecord(path: string): Promise<RunRecord | null> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
  let record: Partial<RunRecord>;
  try {
    record = JSON.parse(text) as Partial<RunRecord>;
  } catch (cause) {
    throw new SlimeError(
      "state.damaged",
      `${path} is not JSON: restore it, or start a new run directory`,
      { path, where: "all of it" },
      { cause },
    );
  }
  if (record.format !== runFormat.format) throw new SlimeError("state.damaged", `${path} is not a run's record`, { path, where: "format" });
  if (record.version !== runFormat.version) {
    throw new SlimeError("journal.unreadable", `${path} has version ${String(record.version)}, this slime reads ${runFormat.version}`, {
      path,
      found: Number(record.version),
      known: runFormat.version,
    });
  }
  return record as RunRecord;
}

/** Creates the record, or checks that this configuration may go on with the run and renews it. @throws `config.invalid`, all at once. */
export async function keepRunRecord(
  path: string,
  run: { readonly runId: string; readonly config: RunConfig; readonly rollouts: number; readonly nowMs: number },
): Promise<RunRecord> {
  const before = await readRunRecord(path);
  const record: RunRecord = {
    ...runFormat,
    runId: before?.runId ?? run.runId,
    config: run.config,
    derived: derive(run.config),
    rollouts: run.rollouts,
    createdAtMs: before?.createdAtMs ?? run.nowMs,
  };
  if (before !== null) {
    const issues = fixedKeys.flatMap((key) => {
      const [then, now] = [JSON.stringify(before.config[key]), JSON.stringify(run.config[key])];
      return then === now ? [] : [`${key} was ${then} when this run began and is ${now} now: keep it, or give another --run-dir`];
    });
    if (issues.length > 0) throw new SlimeError("config.invalid", `${path}: ${issues.join("; ")}`, { issues });
  }
  await writeFileAtomic(path, `${JSON.stringify(record, null, 1)}\n`);
  return record;
}
