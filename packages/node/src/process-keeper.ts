import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, type Logger, sleep } from "@slime/core";
import {
  type Assignment,
  decodeOwnership,
  describeDeath,
  type ExitStatus,
  encodeOwnership,
  errnoOf,
  exitWatcher,
  type HowItDied,
  killMarked,
  killTree,
  type LogFiles,
  lastLines,
  launch,
  linkLogs,
  type OwnershipRecord,
  type Platform,
  privateDirectory,
  processLogs,
  readTextIfThere,
  writeFileAtomic,
} from "@slime/platform";
import { hostEnvironment } from "@slime/rpc";
import { nodeLimits } from "./limits.js";

/**
 * The processes of a node: started, recorded, watched, ended, and found again by the next daemon. Each has a directory
 * `<state dir>/processes/<process id>/` with `ownership.json`, `start.bin` (whose it is, as the control plane's bytes),
 * `pid` and `exit`. Invariants O1–O3 of platform's ownership record.
 */
export interface ProcessKeeper extends AsyncDisposable {
  readonly launch: (order: LaunchOrder) => Promise<void>;
  /** Makes durable whose a pooled host is; its logs get their readable names. */
  readonly assign: (processId: string, assignment: Assignment, start: Uint8Array) => Promise<void>;
  /** Finds the processes of earlier lives: the living are watched from here on, the dead are reported as ended. */
  readonly adopt: () => Promise<readonly Adopted[]>;
  /**
   * Ends a process within its grace. `ask` asks it to; without, or when it fails, it gets SIGTERM at once.
   * Repeated with less grace, the shorter one counts.
   */
  readonly end: (processId: string, graceMs: number, ask: (() => Promise<unknown>) | null) => void;
  readonly drop: (processId: string) => Promise<void>;
  readonly record: (processId: string) => OwnershipRecord | null;
  /** Resolves once no process is left. */
  readonly empty: () => Promise<void>;
}

export interface LaunchOrder {
  readonly processId: string;
  readonly kind: "host" | "driver";
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly assigned: { readonly assignment: Assignment; readonly start: Uint8Array } | null;
  /** Called once the process is recorded, and before its end can be. */
  readonly onStarted: (record: OwnershipRecord) => void;
}

export interface Adopted {
  readonly record: OwnershipRecord;
  /** Empty for a pooled host. */
  readonly start: Uint8Array | null;
}

export interface KeeperOptions {
  readonly stateDir: string;
  readonly clusterId: string;
  readonly nodeId: string;
  readonly platform: Platform;
  readonly clock: Clock;
  readonly log: Logger;
  /** The process and all that came from it are gone. */
  readonly onEnded: (record: OwnershipRecord, how: HowItDied) => void;
}

interface Ending {
  untilMs: number;
  /** No grace at all: SIGKILL. */
  now: boolean;
}

interface Kept {
  record: OwnershipRecord;
  readonly oomBefore: number | null;
  readonly unwatch: () => void;
  ending: Ending | null;
  /** Settles when whatever ends it, if anything does, has done its part. */
  enders: Promise<unknown>;
  killedByUs: boolean;
  gone: boolean;
}

/** Opens the process records of a node's state directory. */
export async function processKeeper(options: KeeperOptions): Promise<ProcessKeeper> {
  const { platform, clock, log } = options;
  const { processes } = platform;
  const root = await privateDirectory(join(options.stateDir, "processes"));
  const logDir = await privateDirectory(join(options.stateDir, "logs"));
  await privateDirectory(join(logDir, "processes"));
  const watcher = exitWatcher({ processes, clock });
  const kept = new Map<string, Kept>();
  const emptied: (() => void)[] = [];
  const dirOf = (processId: string) => join(root, processId);
  const save = (record: OwnershipRecord) => writeFileAtomic(join(dirOf(record.processId), "ownership.json"), encodeOwnership(record));
  const markOf = (processId: string) => ({ name: hostEnvironment.processId, value: processId });

  const onExit = async (entry: Kept, status: ExitStatus) => {
    const { processId, logs, kind } = entry.record;
    entry.gone = true;
    // A driver's shell may go at the first signal while its command still has the grace of the same stop.
    if (kind === "driver") await entry.enders;
    // What it left behind: children of its own that nobody will ask for any more.
    const left = await killMarked(markOf(processId), { processes, clock, graceMs: kind === "driver" ? 1_000 : 0 });
    if (left.length > 0) log.error("process.unkillable", { processId, pids: left });
    const how = await describeDeath({
      status,
      stderr: logs.stderr,
      oomKills: { before: entry.oomBefore, after: platform.oomKills() },
      killedByUs: entry.killedByUs,
    });
    if (entry.record.assignment === null) await dropEmptyLogs(logs);
    kept.delete(processId);
    log.info("process.ended", { processId, pid: entry.record.identity.pid, exitCode: how.exitCode, signal: how.signal });
    options.onEnded(entry.record, how);
    if (kept.size === 0) for (const resolve of emptied.splice(0)) resolve();
  };

  const keep = (record: OwnershipRecord, parentEnded?: Promise<void>): Kept => {
    const watched = {
      identity: record.identity,
      parent: record.parent,
      exitFile: record.exitFile,
      ...(parentEnded === undefined ? {} : { parentEnded }),
    };
    const entry: Kept = {
      record,
      oomBefore: platform.oomKills(),
      unwatch: watcher.watch(watched, (status) => void onExit(entry, status)),
      ending: null,
      enders: Promise.resolve(),
      killedByUs: false,
      gone: false,
    };
    kept.set(record.processId, entry);
    return entry;
  };

  /** A host that was asked gets its grace; one that cannot be asked has this long to show that it is ending already. */
  const refusedMs = 300;
  const runEnd = async (entry: Kept, ending: Ending, ask: (() => Promise<unknown>) | null) => {
    let refusedAtMs: number | null = null;
    if (ask !== null) {
      ask().catch(() => void (refusedAtMs = clock.nowMs()));
      const waits = () =>
        !entry.gone && clock.nowMs() < ending.untilMs && (refusedAtMs === null || clock.nowMs() - refusedAtMs < refusedMs);
      while (waits()) await sleep(clock, 20);
    }
    if (entry.gone) return;
    entry.killedByUs = true;
    const leftMs = Math.max(0, ending.untilMs - clock.nowMs());
    const graceMs = ending.now ? 0 : Math.max(leftMs, ask === null ? 0 : nodeLimits.termGraceMs);
    const { identity, parent, processId } = entry.record;
    const left = await killTree({ identity, parent, mark: markOf(processId) }, { processes, clock, graceMs });
    if (left.length > 0) log.error("process.unkillable", { processId, pids: left });
  };

  return {
    record: (processId) => kept.get(processId)?.record ?? null,
    async launch(order) {
      const { processId, kind, assigned } = order;
      const dir = dirOf(processId);
      await mkdir(dir, { mode: 0o700 });
      const logs = processLogs(logDir, kind, processId);
      if (assigned !== null) await writeFileAtomic(join(dir, "start.bin"), assigned.start);
      const launched = await launch({ processes, clock, dir, command: order.command, env: order.env, cwd: order.cwd, logs });
      const record: OwnershipRecord = {
        version: 1,
        processId,
        kind,
        clusterId: options.clusterId,
        nodeId: options.nodeId,
        identity: launched.identity,
        parent: launched.parent,
        command: order.command,
        assignment: assigned?.assignment ?? null,
        logs,
        exitFile: launched.exitFile,
        startedAtMs: clock.wallMs(),
      };
      await save(record);
      if (record.assignment !== null) await linkLogs(logDir, record.assignment, logs);
      order.onStarted(record);
      keep(record, launched.parentEnded);
    },
    async assign(processId, assignment, start) {
      const entry = kept.get(processId);
      if (entry === undefined) return;
      await writeFileAtomic(join(dirOf(processId), "start.bin"), start);
      entry.record = { ...entry.record, assignment };
      await save(entry.record);
      await linkLogs(logDir, assignment, entry.record.logs);
    },
    async adopt() {
      const adopted: Adopted[] = [];
      for (const processId of await readdir(root)) {
        const found = await readRecord(dirOf(processId), log);
        if (found === null) {
          // Died between start and record, or the record is damaged: nobody can speak for it.
          await killMarked(markOf(processId), { processes, clock, graceMs: nodeLimits.termGraceMs });
          await rm(dirOf(processId), { recursive: true, force: true });
          continue;
        }
        adopted.push(found);
        keep(found.record);
      }
      return adopted;
    },
    end(processId, graceMs, ask) {
      const entry = kept.get(processId);
      if (entry === undefined || entry.gone) return;
      const untilMs = clock.nowMs() + graceMs;
      if (entry.ending !== null && entry.ending.untilMs <= untilMs) return;
      const again = entry.ending !== null;
      const ending = entry.ending ?? { untilMs, now: false };
      entry.ending = ending;
      ending.untilMs = untilMs;
      ending.now = graceMs === 0;
      entry.enders = Promise.all([entry.enders, runEnd(entry, ending, again || graceMs === 0 ? null : ask)]);
    },
    drop: (processId) => rm(dirOf(processId), { recursive: true, force: true }),
    empty: () => (kept.size === 0 ? Promise.resolve() : new Promise((resolve) => emptied.push(resolve))),
    async [Symbol.asyncDispose]() {
      watcher[Symbol.dispose]();
    },
  };
}

/** A host that never was anybody's leaves files only when it said something. */
async function dropEmptyLogs(logs: LogFiles): Promise<void> {
  for (const path of [logs.stdout, logs.stderr]) if ((await lastLines(path, 1)).length === 0) await rm(path, { force: true });
}

async function readRecord(dir: string, log: Logger): Promise<Adopted | null> {
  const path = join(dir, "ownership.json");
  try {
    const text = await readTextIfThere(path);
    if (text === null) return null;
    const record = decodeOwnership(text, path);
    return { record, start: record.assignment === null ? null : await readFile(join(dir, "start.bin")) };
  } catch (error) {
    log.warn("process.record_unreadable", { path, error: errnoOf(error) || error });
    return null;
  }
}
