import type { SampleColumns } from "@slime/backend";
import { SlimeError } from "@slime/core";

/** One optimizer step's prompt instances on one rank: how many samples of each were in it, in the order they came. */
export interface AppliedStep {
  readonly step: number;
  readonly rolloutId: number;
  readonly instances: readonly (readonly [instanceId: string, samples: number])[];
}

/** The record of one step: rows are counted by instance, in the order they came. */
export function appliedStep(step: number, rolloutId: number, columns: SampleColumns): AppliedStep {
  const counts = new Map<string, number>();
  for (const id of columns.instanceIds_N) counts.set(id, (counts.get(id) ?? 0) + 1);
  return { step, rolloutId, instances: [...counts] };
}

/** The trainer's own record for the audit, as JSON lines, one per optimizer step. */
export function encodeApplied(steps: readonly AppliedStep[]): string {
  return steps.map((step) => `${JSON.stringify(step)}\n`).join("");
}

/** @throws `checkpoint.invalid` naming the line. */
export function decodeApplied(text: string, path: string): AppliedStep[] {
  return text.split("\n").flatMap((line, i) => {
    if (line === "") return [];
    try {
      const { step, rolloutId, instances } = JSON.parse(line) as AppliedStep;
      if (Number.isInteger(step) && Number.isInteger(rolloutId) && Array.isArray(instances)) return [{ step, rolloutId, instances }];
    } catch (cause) {
      throw new SlimeError("checkpoint.invalid", `${path}:${i + 1}: not JSON`, { path, reason: `line ${i + 1} is not JSON` }, { cause });
    }
    throw new SlimeError("checkpoint.invalid", `${path}:${i + 1}: not a record of a step`, {
      path,
      reason: `line ${i + 1} is not a record of a step`,
    });
  });
}
