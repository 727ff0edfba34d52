import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import type { SampleRecord } from "./run-records.js";

export type SampleSort = "reward" | "length" | "index";

/** Directory of a rollout's samples below `samples/`, or of an evaluation's. */
export function samplesDirectoryName(kind: "rollout" | "eval", id: number): string {
  return `${kind}-${String(id).padStart(7, "0")}`;
}

/**
 * The samples of one rollout (or evaluation), each once. A rollout that was generated again after a rollback has files of several eras;
 * the newest era's are what trained. `id` null: the newest there is.
 * @throws `not_found` naming what is there instead; `data.invalid` naming file and line.
 */
export async function readSamples(
  samplesRoot: string,
  kind: "rollout" | "eval",
  id: number | null,
  sort: SampleSort,
): Promise<readonly SampleRecord[]> {
  const there = (await namesIn(samplesRoot)).filter((name) => name.startsWith(`${kind}-`)).sort();
  const wanted = id === null ? there.at(-1) : samplesDirectoryName(kind, id);
  const directory = join(samplesRoot, wanted ?? "");
  const names = wanted === undefined ? [] : await namesIn(directory);
  if (names.length === 0)
    throw new SlimeError("not_found", `no samples of ${kind} ${id ?? ""} below ${samplesRoot}: it has ${inWords(there)}`, {
      kind: "samples",
      id: String(id),
    });
  const eraOf = (name: string) => Number(/\.e(\d+)[._]/.exec(name)?.[1] ?? 0);
  const newest = Math.max(...names.map(eraOf));
  const byIndex = new Map<string, SampleRecord>();
  for (const name of names.filter((name) => eraOf(name) === newest).sort()) {
    const path = join(directory, name);
    const text = await readFile(path, "utf8");
    for (const [at, line] of text.split("\n").entries()) {
      if (line === "") continue;
      try {
        const record = JSON.parse(line) as SampleRecord;
        byIndex.set(`${record.instanceId}#${record.index}`, record);
      } catch (cause) {
        // The last line of a worker that was killed while it wrote.
        if (at === text.split("\n").length - 1) continue;
        throw new SlimeError("data.invalid", `${path}:${at + 1} is not JSON`, { file: path, issues: [`line ${at + 1}`] }, { cause });
      }
    }
  }
  return [...byIndex.values()].sort(comparators[sort]);
}

const comparators: Readonly<Record<SampleSort, (a: SampleRecord, b: SampleRecord) => number>> = {
  reward: (a, b) => (b.reward ?? Number.NEGATIVE_INFINITY) - (a.reward ?? Number.NEGATIVE_INFINITY) || a.index - b.index,
  length: (a, b) => b.responseLength - a.responseLength || a.index - b.index,
  index: (a, b) => a.index - b.index,
};

const namesIn = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);

function inWords(names: readonly string[]): string {
  const [first, last] = [names[0], names.at(-1)];
  return first === undefined || last === undefined ? "none at all (were they turned off by --no-save-samples?)" : `${first} to ${last}`;
}
