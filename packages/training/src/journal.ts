/**
 * The loop's events, in the order in which they took effect, in an append-only file. The state of a run is the reducer over it.
 * J1 an event is durable before anything it causes begins; J2 replaying gives the same state; J3 a journal of a reducer this one does
 * not know is put aside, said so, and the run goes on from the newest manifest; J4 each attempt is replayed under the configuration it
 * had, so that a run may be resumed with another length or interval.
 */
import { type Clock, type Logger, SlimeError } from "@slime/core";
import { openRecordLog, type RecordLog } from "@slime/data";
import { initialState, type LoopConfig, type LoopEvent, type LoopState } from "./loop-state.js";
import { reduce, reducerVersion } from "./reducer.js";
import type { RunStorage } from "./run-records.js";

export const journalFormat = { format: "slime.journal", version: 1 } as const;

export interface Journal {
  /** The state that all events so far lead to. */
  readonly replayed: LoopState;
  readonly append: (event: LoopEvent) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** Opens or creates the journal and replays it. A torn tail is cut. */
export async function openJournal(
  storage: RunStorage,
  config: LoopConfig,
  parts: { readonly clock: Clock; readonly log: Logger },
): Promise<Journal> {
  const opened = await openReadable(storage, parts.log);
  let replayed = initialState;
  let then = config;
  for (const { event, config: written } of opened.events) {
    then = written ?? then;
    replayed = reduce(then, replayed, event).state;
  }
  if (opened.cutBytes > 0) parts.log.warn("journal.cut", { bytes: opened.cutBytes });
  const { log } = opened;
  return {
    replayed,
    append: (event) =>
      log.append({ at: parts.clock.wallMs(), ...(event.kind === "attempt.started" ? { reducer: reducerVersion, config } : {}), event }),
    close: () => log.close(),
  };
}

interface OpenedJournal {
  readonly log: RecordLog;
  readonly events: readonly { readonly event: LoopEvent; readonly config: LoopConfig | null }[];
  readonly cutBytes: number;
}

async function openReadable(storage: RunStorage, log: Logger): Promise<OpenedJournal> {
  try {
    return await openOnce(storage);
  } catch (error) {
    if (!SlimeError.is(error, "journal.unreadable")) throw error;
    const aside = await storage.setJournalAside();
    log.warn("journal.unreadable", { reason: error.message, aside, next: "the run goes on from its newest checkpoint" });
    return openOnce(storage);
  }
}

async function openOnce(storage: RunStorage): Promise<OpenedJournal> {
  const file = await storage.openJournal();
  const { log, records, cutBytes } = await openRecordLog(file, journalFormat);
  for (const record of records) {
    const { reducer } = record;
    if (reducer !== undefined && reducer !== reducerVersion) {
      await log.close();
      throw new SlimeError("journal.unreadable", `${file.path} was written by reducer ${String(reducer)}, this one is ${reducerVersion}`, {
        path: file.path,
        found: Number(reducer),
        known: reducerVersion,
      });
    }
  }
  return {
    log,
    events: records.map((record) => ({ event: record["event"] as LoopEvent, config: (record["config"] ?? null) as LoopConfig | null })),
    cutBytes,
  };
}
