import type { Clock, Timer } from "@slime/core";
import { type ExitStatus, readExitFile } from "./exit-status.js";
import type { ProcessIdentity, ProcessTable } from "./process-table.js";

export interface Watched {
  readonly identity: ProcessIdentity;
  readonly parent: ProcessIdentity;
  readonly exitFile: string;
  /** Of a process started by us; makes its end known at once. */
  readonly parentEnded?: Promise<void>;
}

export interface ExitWatcher extends Disposable {
  /**
   * Calls back once, when the process has ended: with the status its parent left, or with nulls when the parent died too.
   * Returns what stops the watch.
   */
  readonly watch: (process: Watched, onExit: (status: ExitStatus) => void) => () => void;
}

export interface ExitWatcherOptions {
  readonly processes: ProcessTable;
  readonly clock: Clock;
  /** How often exit files are looked for: an adopted process's death is known this late. Default 100. */
  readonly pollMs?: number;
  /** How often the process table is asked for deaths that left no exit file. Default 1,000. */
  readonly tableMs?: number;
}

interface Entry {
  readonly process: Watched;
  readonly onExit: (status: ExitStatus) => void;
  /** When both process and parent were first seen gone: the exit file may be a rename away. */
  lostAtMs: number | null;
}

/** How long after both are gone an exit file may still appear. */
const exitFileGraceMs = 200;

/** Watches processes by their exit files, for one daemon, with one timer. */
export function exitWatcher(options: ExitWatcherOptions): ExitWatcher {
  const { clock, processes, pollMs = 100, tableMs = 1_000 } = options;
  const entries = new Set<Entry>();
  let timer: Timer | null = null;
  let tableAtMs = clock.nowMs() + tableMs;
  let disposed = false;

  const finish = (entry: Entry, status: ExitStatus) => {
    if (entries.delete(entry)) entry.onExit(status);
  };
  const checkFile = (entry: Entry): boolean => {
    const status = readExitFile(entry.process.exitFile);
    if (status !== null) finish(entry, status);
    return status !== null;
  };
  const checkTable = async (entry: Entry) => {
    const { identity, parent } = entry.process;
    if ((await processes.isAlive(parent)) || (await processes.isAlive(identity))) {
      entry.lostAtMs = null; // seen again: the table had not answered
      return;
    }
    if (checkFile(entry)) return;
    entry.lostAtMs ??= clock.nowMs();
    if (clock.nowMs() - entry.lostAtMs >= exitFileGraceMs) finish(entry, { exitCode: null, signal: null });
  };
  const schedule = () => {
    if (timer === null && entries.size > 0 && !disposed) timer = clock.after(pollMs, () => void poll());
  };
  const poll = async () => {
    const tableDue = clock.nowMs() >= tableAtMs;
    if (tableDue) tableAtMs = clock.nowMs() + tableMs;
    for (const entry of [...entries]) {
      if (!checkFile(entry) && (tableDue || entry.lostAtMs !== null)) await checkTable(entry);
    }
    timer = null;
    schedule();
  };
  return {
    watch(process, onExit) {
      const entry: Entry = { process, onExit, lostAtMs: null };
      entries.add(entry);
      void process.parentEnded?.then(async () => {
        if (entries.has(entry) && !checkFile(entry)) await checkTable(entry);
      });
      schedule();
      return () => void entries.delete(entry);
    },
    [Symbol.dispose]() {
      disposed = true;
      entries.clear();
      timer?.cancel();
    },
  };
}
