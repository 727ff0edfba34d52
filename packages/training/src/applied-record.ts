/** The trainer's own record of what it applied: `applied-NNNNN.jsonl` in each checkpoint, one file per rank, one line per step. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { SlimeError } from "@slime/core";

/** One optimizer step as a trainer rank wrote it: how many samples of each instance were in it. */
export interface AppliedStep {
  readonly step: number;
  readonly rolloutId: number;
  readonly instances: readonly (readonly [instanceId: string, samples: number])[];
}

/** All ranks' records of a checkpoint, as `applied-NNNNN.jsonl`. */
export async function readApplied(directory: string): Promise<readonly AppliedStep[]> {
  const names = (await readdir(directory)).filter((name) => /^applied-\d{5}\.jsonl$/.test(name)).sort();
  if (names.length === 0)
    throw new SlimeError("checkpoint.invalid", `${directory} has no applied-NNNNN.jsonl: its trainer kept no record of what it applied`, {
      path: directory,
      reason: "no record of applied instances",
    });
  const steps: AppliedStep[] = [];
  for (const name of names) {
    const text = await readFile(join(directory, name), "utf8");
    for (const [at, line] of text.split("\n").entries())
      if (line !== "") steps.push(parseApplied(line, `${join(directory, name)}:${at + 1}`));
  }
  return steps;
}

function parseApplied(line: string, where: string): AppliedStep {
  try {
    const { step, rolloutId, instances } = JSON.parse(line) as AppliedStep;
    if (Number.isInteger(step) && Number.isInteger(rolloutId) && Array.isArray(instances)) return { step, rolloutId, instances };
  } catch (cause) {
    throw new SlimeError("checkpoint.invalid", `${where} is not JSON`, { path: where, reason: "not JSON" }, { cause });
  }
  throw new SlimeError("checkpoint.invalid", `${where} is no record of a step`, { path: where, reason: "not a record of a step" });
}
