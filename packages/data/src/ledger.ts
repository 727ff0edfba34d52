/**
 * The exactly-once record of prompt instances: `LedgerState` behind a durable file.
 * Invariants: those of ledger-state.ts, and L6 what a call resolved with survives any crash; L7 after a crash the ledger holds a prefix
 * of the commands in their order, so repeating the commands that did not resolve leads to the same state.
 */
import { type Clock, SlimeError } from "@slime/core";
import {
  applyCommand,
  type LedgerCommand,
  type LedgerCounts,
  type LedgerEntry,
  type LedgerPhase,
  type LedgerSnapshot,
  LedgerState,
  snapshotOf,
} from "./ledger-state.js";
import { type LogFile, openLogFile } from "./log-file.js";
import { type LogRecord, openRecordLog, parseRecords, type RecordLog } from "./record-log.js";

/** What the header of a ledger file says. */
export const ledgerFormat = { format: "slime.ledger", version: 1 } as const;

/** One command as it was recorded: `at` is when (milliseconds since 1970), `op` the operation id or null. */
export type LedgerRecord = LedgerCommand & { readonly seq: number; readonly at: number; readonly op: string | null };

/** The ledger of one run, which this process alone writes. Opened by `openLedger`. */
export class Ledger {
  readonly #log: RecordLog;
  readonly #state: LedgerState;
  readonly #clock: Clock;
  /** Resolves when every record so far is durable. */
  #durable: Promise<void> = Promise.resolve();
  /** Bytes of a torn last record that opening cut off. */
  readonly cutBytes: number;

  /** @internal Use `openLedger`. */
  constructor(log: RecordLog, state: LedgerState, clock: Clock, cutBytes: number) {
    this.#log = log;
    this.#state = state;
    this.#clock = clock;
    this.cutBytes = cutBytes;
  }

  /** New instances leave the data source and are handed out for `rolloutId`. */
  issue(ids: readonly string[], rolloutId: number, operationId: string | null = null): Promise<void> {
    return this.apply({ kind: "issue", rollout: rolloutId, ids }, operationId);
  }

  /** Instances that came back are handed out again. */
  lease(ids: readonly string[], rolloutId: number, operationId: string | null = null): Promise<void> {
    return this.apply({ kind: "lease", rollout: rolloutId, ids }, operationId);
  }

  /** Instances wait for a rollout again, for example in a buffer. */
  release(ids: readonly string[], rolloutId: number, operationId: string | null = null): Promise<void> {
    return this.apply({ kind: "release", rollout: rolloutId, ids }, operationId);
  }

  finish(ids: readonly string[], rolloutId: number, operationId: string | null = null): Promise<void> {
    return this.apply({ kind: "finish", rollout: rolloutId, ids }, operationId);
  }

  /** Their samples are in the weights after optimizer step `step`. */
  consume(ids: readonly string[], rolloutId: number, step: number, operationId: string | null = null): Promise<void> {
    return this.apply({ kind: "consume", rollout: rolloutId, step, ids }, operationId);
  }

  drop(ids: readonly string[], rolloutId: number, reason: string, operationId: string | null = null): Promise<void> {
    return this.apply({ kind: "drop", rollout: rolloutId, reason, ids }, operationId);
  }

  /** All of the ledger, for a checkpoint's manifest. Call it when the calls it should cover have resolved. */
  snapshot(): LedgerSnapshot {
    return snapshotOf(this.#state);
  }

  /** Goes back to a snapshot (null: empty), by an appended record that says so. */
  async restore(snapshot: unknown, checkpoint: string | null): Promise<void> {
    await this.apply({ kind: "restore", checkpoint, snapshot: snapshot === null ? null : parseSnapshot(snapshot) }, null);
  }

  /**
   * Applies a command and makes it durable. A command that has been applied already resolves at once, when its record is durable.
   * @throws SlimeError `conflict` or `not_found` (the command does not fit; nothing changed), `disk.full`, `state.damaged`.
   */
  apply(command: LedgerCommand, operationId: string | null): Promise<void> {
    try {
      const undo = applyCommand(this.#state, command, operationId);
      if (undo !== null) {
        const durable = this.#log.append({ at: this.#clock.wallMs(), op: operationId, ...command }, undo);
        this.#durable = durable;
        // What failed was undone, so the next repeated command has nothing to wait for.
        durable.catch(() => {
          if (this.#durable === durable) this.#durable = Promise.resolve();
        });
      }
      return this.#durable;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  entry(id: string): LedgerEntry | undefined {
    return this.#state.entry(id);
  }

  counts(): LedgerCounts {
    return this.#state.counts();
  }

  /** Ids in one of these phases, in the order they were issued. */
  inPhase(...phases: readonly LedgerPhase[]): string[] {
    return [...this.#state.entries()].flatMap(([id, entry]) => (phases.includes(entry.phase) ? [id] : []));
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}

/** @param file a path, or a double of the file. */
export async function openLedger(file: string | LogFile, options: { readonly clock: Clock }): Promise<Ledger> {
  const { log, records, cutBytes } = await openRecordLog(typeof file === "string" ? await openLogFile(file) : file, ledgerFormat);
  const state = new LedgerState();
  for (const record of records) replay(state, record);
  return new Ledger(log, state, options.clock, cutBytes);
}

/** A ledger's records and final state, without opening it for writing: what an audit reads. */
export function readLedger(bytes: Uint8Array, path: string): { readonly state: LedgerState; readonly records: readonly LedgerRecord[] } {
  const state = new LedgerState();
  const { records } = parseRecords(bytes, path, ledgerFormat);
  for (const record of records) replay(state, record);
  return { state, records: records as readonly unknown[] as readonly LedgerRecord[] };
}

/** Checked bytes become a command: the line's checksum vouches for what we wrote. */
function replay(state: LedgerState, record: LogRecord): void {
  applyCommand(state, record as unknown as LedgerCommand, typeof record["op"] === "string" ? record["op"] : null);
}

function parseSnapshot(value: unknown): LedgerSnapshot {
  if (typeof value === "object" && value !== null && "version" in value && "rows" in value && Array.isArray(value.rows))
    return value as unknown as LedgerSnapshot;
  throw new SlimeError("checkpoint.invalid", "the manifest's ledger is not a snapshot of one: resume from another checkpoint", {
    path: "manifest.ledger",
    reason: "no rows",
  });
}
