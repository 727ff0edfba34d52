import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { parseRecords } from "@slime/data";
import { journalFormat } from "./journal.js";
import type { LoopEvent } from "./loop-state.js";
import { type RunHolder, type RunOwner, readCheckpoints, readLock, runPaths } from "./run-directory.js";
import { type RunRecord, readRunRecord } from "./run-record.js";

/** What a run directory tells about its run without anybody running it. */
export interface RunView {
  readonly runId: string;
  readonly root: string;
  readonly mode: string;
  readonly rollouts: number;
  readonly trained: number;
  readonly attempts: number;
  /**
   * As journal and lock tell: `running` has a living driver, `killed` one that died without a word, `stopped` ended by itself before the
   * end (a signal, a lost cluster); `held` is locked from another machine, which cannot be seen from here.
   */
  readonly state: "finished" | "failed" | "running" | "stopped" | "killed" | "held" | "not begun";
  /** The driver that has the directory, or had it when it was killed. */
  readonly holder: RunHolder | null;
  readonly failure: string | null;
  readonly checkpoint: string | null;
  /** Newest values of these metrics. */
  readonly reward: number | null;
  readonly evals: Readonly<Record<string, number>>;
  readonly createdAtMs: number;
}

/** A run by path, or by id below `outputs`. @throws `not_found` that lists what there is. */
export async function findRun(wanted: string, outputs: string): Promise<string> {
  for (const root of [wanted, join(outputs, wanted)]) if (await isFile(runPaths(root).runJson)) return root;
  const there = (await runRoots(outputs)).map((root) => root.slice(outputs.length + 1));
  throw new SlimeError(
    "not_found",
    `no run at ${wanted} nor at ${join(outputs, wanted)}${there.length > 0 ? `; there are: ${there.slice(-8).join(", ")}` : ""}`,
    { kind: "run", id: wanted },
  );
}

/** All runs below a directory, oldest first; what is no run is passed over. `here` tells whether a run's driver lives. */
export async function listRuns(outputs: string, here: Pick<RunOwner, "host" | "isAlive">): Promise<readonly RunView[]> {
  const views: RunView[] = [];
  for (const root of await runRoots(outputs)) {
    const record = await readRunRecord(runPaths(root).runJson).catch(() => null);
    if (record !== null) views.push(await viewOf(root, record, here));
  }
  return views.sort((a, b) => a.createdAtMs - b.createdAtMs);
}

async function runRoots(outputs: string): Promise<readonly string[]> {
  const entries = await readdir(outputs, { withFileTypes: true }).catch(() => []);
  const roots: string[] = [];
  for (const entry of entries) {
    const root = join(outputs, entry.name);
    if (entry.isDirectory() && (await isFile(runPaths(root).runJson))) roots.push(root);
  }
  return roots.sort();
}

async function viewOf(root: string, record: RunRecord, here: Pick<RunOwner, "host" | "isAlive">): Promise<RunView> {
  const paths = runPaths(root, record.config.save);
  const events = await journalEvents(paths.journal);
  const trained = lastOf(events, "trained");
  const holder = await readLock(paths.lock);
  const failed = events.at(-1)?.kind === "failed" ? lastOf(events, "failed") : null;
  const done = trained === null ? 0 : trained.rolloutId + 1;
  const metrics = await newestMetrics(paths.metrics);
  return {
    runId: record.runId,
    root,
    mode: record.config.mode,
    rollouts: record.rollouts,
    trained: done,
    attempts: events.filter((event) => event.kind === "attempt.started").length,
    state: (await heldState(holder, here)) ?? endedState(events, record.rollouts, holder),
    holder,
    failure: failed === null ? null : `[${failed.code}] ${failed.message}`,
    checkpoint: (await readCheckpoints(paths.checkpoints)).at(-1)?.name ?? null,
    reward: metrics.get("rollout/raw_reward") ?? null,
    evals: Object.fromEntries([...metrics].filter(([name]) => /^eval\/[^/-]+$/.test(name) && name !== "eval/step")),
    createdAtMs: record.createdAtMs,
  };
}

/** The state that a living driver gives a run; null: none has it. */
async function heldState(holder: RunHolder | null, here: Pick<RunOwner, "host" | "isAlive">): Promise<"running" | "held" | null> {
  if (holder === null) return null;
  if (holder.host !== here.host) return "held";
  return (await here.isAlive(holder)) ? "running" : null;
}

function endedState(events: readonly LoopEvent[], rollouts: number, holder: RunHolder | null): RunView["state"] {
  if (events.at(-1)?.kind === "failed") return "failed";
  if (events.length === 0) return "not begun";
  const trained = lastOf(events, "trained");
  if (trained !== null && trained.rolloutId + 1 >= rollouts && isSettled(events)) return "finished";
  return holder === null ? "stopped" : "killed";
}

/** The final checkpoint is behind the last training. */
function isSettled(events: readonly LoopEvent[]): boolean {
  return events.findLastIndex((event) => event.kind === "saved") > events.findLastIndex((event) => event.kind === "trained");
}

function lastOf<K extends LoopEvent["kind"]>(events: readonly LoopEvent[], kind: K): Extract<LoopEvent, { readonly kind: K }> | null {
  return (events.findLast((event) => event.kind === kind) as Extract<LoopEvent, { readonly kind: K }> | undefined) ?? null;
}

/** Events of a journal that somebody else may be writing; what cannot be read yet is left out. */
export async function journalEvents(path: string): Promise<readonly LoopEvent[]> {
  const bytes = await readFile(path).catch(() => null);
  if (bytes === null) return [];
  return parseRecords(bytes, path, journalFormat).records.map((record) => record["event"] as LoopEvent);
}

/** The newest value of each metric. */
export async function newestMetrics(path: string): Promise<ReadonlyMap<string, number>> {
  const newest = new Map<string, number>();
  for (const record of await readMetrics(path)) for (const [name, value] of Object.entries(record)) newest.set(name, value);
  return newest;
}

/** All records of `metrics.jsonl`; a torn last line is left out. */
export async function readMetrics(path: string): Promise<readonly Readonly<Record<string, number>>[]> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => {
    try {
      return line === "" ? [] : [JSON.parse(line) as Record<string, number>];
    } catch {
      return [];
    }
  });
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}
