/**
 * An append-only file of records, one JSON object a line, that survives a kill at any moment.
 *
 * A line is `{"crc":"<8 hex>",` and the rest of the object; the CRC-32 (zlib's) covers the rest of the line up to its last `}`. The
 * first line names format and version, every other carries `seq`, counting from 1.
 *
 * Invariants: F1 a record whose append resolved is read again after any crash; F2 a record is read whole or not at all; F3 only what
 * follows the last whole record is ever cut off, damage before it is an error that names the place; F4 a file of a newer version is
 * refused, not guessed at; F5 an append that failed leaves no part of its records behind.
 */
import { crc32 } from "node:zlib";
import { SlimeError } from "@slime/core";
import type { LogFile } from "./log-file.js";

/** A JSON object; keys `crc`, `seq`, `format` and `version` are the log's. */
export type LogRecord = Readonly<Record<string, unknown>>;

/** What the first line of a log says, so that no program reads another's file as its own. */
export interface RecordLogFormat {
  /** Like `slime.ledger`. */
  readonly format: string;
  readonly version: number;
}

/** Longest line that is written or read. */
export const recordBytesMax = 256 * 1024 * 1024;

/** A log, and what it held. */
export interface OpenedLog {
  readonly log: RecordLog;
  readonly records: readonly LogRecord[];
  /** Bytes of a torn tail that were cut off. */
  readonly cutBytes: number;
}

/** Reads what is there (writing the header into an empty file) and cuts a torn tail. */
export async function openRecordLog(file: LogFile, format: RecordLogFormat): Promise<OpenedLog> {
  const bytes = await file.read();
  const { records, wholeBytes, headerFound } = parseRecords(bytes, file.path, format);
  if (wholeBytes < bytes.length) {
    await file.truncate(wholeBytes);
    await file.sync();
  }
  const log = new RecordLog(file, wholeBytes, records.length);
  if (!headerFound) await log.writeHeader(format);
  return { log, records, cutBytes: bytes.length - wholeBytes };
}

/** The whole records of a log and where they end; changes nothing. For readers that do not own the file, such as an audit. */
export function parseRecords(
  bytes: Uint8Array,
  path: string,
  format: RecordLogFormat,
): { readonly records: readonly LogRecord[]; readonly wholeBytes: number; readonly headerFound: boolean } {
  const records: LogRecord[] = [];
  let at = 0;
  let lines = 0;
  while (at < bytes.length) {
    const end = bytes.indexOf(0x0a, at);
    const record = end < 0 ? null : parseLine(bytes.subarray(at, end));
    if (record === null) {
      // A whole record after this place means that it is no torn tail.
      for (let next = end; next >= 0; ) {
        const from = next + 1;
        next = bytes.indexOf(0x0a, from);
        if (next >= 0 && parseLine(bytes.subarray(from, next)) !== null)
          throw damaged(path, `line ${lines + 1} (byte ${at})`, "does not match its checksum, and whole records follow it");
      }
      break;
    }
    if (lines === 0) checkHeader(record, path, format);
    else if (record["seq"] !== lines)
      throw damaged(
        path,
        `line ${lines + 1} (byte ${at})`,
        `has seq ${String(record["seq"])}, ${lines} was due: a record is missing or doubled`,
      );
    else records.push(record);
    lines++;
    at = end + 1;
  }
  return { records, wholeBytes: at, headerFound: lines > 0 };
}

const prefixBytes = '{"crc":"00000000",'.length;

function parseLine(line: Uint8Array): LogRecord | null {
  if (line.length <= prefixBytes || line.length > recordBytesMax) return null;
  const buffer = Buffer.from(line.buffer, line.byteOffset, line.byteLength);
  if (buffer.toString("latin1", 0, prefixBytes) !== prefixOf(buffer.subarray(prefixBytes))) return null;
  return JSON.parse(buffer.toString("utf8")) as LogRecord;
}

function prefixOf(rest: Uint8Array): string {
  return `{"crc":"${crc32(rest).toString(16).padStart(8, "0")}",`;
}

function formatLine(body: LogRecord): Buffer {
  const rest = Buffer.from(JSON.stringify(body).slice(1));
  if (rest.length > recordBytesMax)
    throw new SlimeError("wire.limit", `a record of ${rest.length} bytes is longer than recordBytesMax (${recordBytesMax})`, {
      what: "recordBytesMax",
      value: rest.length,
      max: recordBytesMax,
    });
  return Buffer.concat([Buffer.from(prefixOf(rest)), rest, Buffer.of(0x0a)]);
}

function checkHeader(record: LogRecord, path: string, format: RecordLogFormat): void {
  const { format: name, version } = record;
  if (name !== format.format || typeof version !== "number") throw damaged(path, "line 1", `is not the header of a ${format.format} file`);
  if (version > format.version)
    throw new SlimeError(
      "journal.unreadable",
      `${path} was written by a newer slime (${format.format} version ${version}; this one reads up to ${format.version})`,
      { path, found: version, known: format.version },
    );
}

function damaged(path: string, where: string, what: string): SlimeError {
  return new SlimeError(
    "state.damaged",
    `${path}: ${where} ${what}. Restore the file from a copy, or resume from a checkpoint into a new run directory`,
    { path, where },
  );
}

interface Waiting {
  readonly bytes: Buffer;
  readonly undo: () => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

type State =
  | { readonly kind: "open" }
  /** Nobody knows what is on disk (a sync or the clean-up after a failed append failed); only a new opening finds out. */
  | { readonly kind: "broken"; readonly error: SlimeError }
  | { readonly kind: "closed" };

/** Appends of one event-loop turn, and those that arrive during a sync, share one sync. */
export class RecordLog {
  readonly #file: LogFile;
  #state: State = { kind: "open" };
  #durableBytes: number;
  #seq: number;
  #queue: Waiting[] = [];
  #flushing: Promise<void> | null = null;

  /** @internal Use `openRecordLog`. */
  constructor(file: LogFile, durableBytes: number, seq: number) {
    this.#file = file;
    this.#durableBytes = durableBytes;
    this.#seq = seq;
  }

  /** @internal The first line of a new file. */
  writeHeader(format: RecordLogFormat): Promise<void> {
    return this.#enqueue(formatLine({ format: format.format, version: format.version }), () => {});
  }

  /**
   * Resolves when the record is on disk. Records are written in the order of the calls.
   * @param undo called when the record did not get there, before any append rejects; of several, the newest first.
   * @throws SlimeError `disk.full` (nothing of the record remains, a later append may work), `state.damaged` (open the file anew).
   */
  append(record: LogRecord, undo: () => void = () => {}): Promise<void> {
    try {
      const bytes = formatLine({ seq: this.#seq + 1, ...record });
      this.#seq++;
      return this.#enqueue(bytes, undo);
    } catch (error) {
      undo();
      return Promise.reject(error);
    }
  }

  /** Waits for what was appended, then gives the file back. */
  async close(): Promise<void> {
    if (this.#state.kind === "closed") return;
    await this.#flushing;
    this.#state = { kind: "closed" };
    await this.#file.close();
  }

  #enqueue(bytes: Buffer, undo: () => void): Promise<void> {
    if (this.#state.kind !== "open") {
      this.#seq--;
      undo();
      return Promise.reject(
        this.#state.kind === "broken"
          ? this.#state.error
          : new SlimeError("state.damaged", `${this.#file.path} was closed`, { path: this.#file.path, where: "end" }),
      );
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ bytes, undo, resolve, reject });
      this.#flushing ??= Promise.resolve().then(() => this.#flush());
    });
  }

  async #flush(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue;
      this.#queue = [];
      const bytes = Buffer.concat(batch.map((waiting) => waiting.bytes));
      try {
        await this.#write(bytes);
      } catch (error) {
        // What waits behind was numbered after this batch, so it fails with it.
        const failed = [...batch, ...this.#queue];
        this.#queue = [];
        this.#seq -= failed.length;
        this.#flushing = null;
        for (const waiting of failed.toReversed()) waiting.undo();
        for (const waiting of failed) waiting.reject(error);
        return;
      }
      for (const waiting of batch) waiting.resolve();
    }
    this.#flushing = null;
  }

  async #write(bytes: Buffer): Promise<void> {
    const { path } = this.#file;
    try {
      await this.#file.append(bytes);
    } catch (error) {
      try {
        await this.#file.truncate(this.#durableBytes);
      } catch (again) {
        throw this.#break(`${path}: an append failed and so did taking its part away: ${String(again)}`, error);
      }
      throw writeFailure(path, bytes.length, error);
    }
    try {
      await this.#file.sync();
    } catch (error) {
      throw this.#break(`${path} could not be synced, so nobody knows what of it is on disk: open it anew`, error);
    }
    this.#durableBytes += bytes.length;
  }

  #break(message: string, cause: unknown): SlimeError {
    const error = new SlimeError("state.damaged", message, { path: this.#file.path, where: `byte ${this.#durableBytes}` }, { cause });
    this.#state = { kind: "broken", error };
    return error;
  }
}

function writeFailure(path: string, needed: number, error: unknown): SlimeError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  if (code === "ENOSPC" || code === "EDQUOT")
    return new SlimeError(
      "disk.full",
      `no space left for ${needed} more bytes of ${path}: free some on its file system, then repeat`,
      { path, needed },
      { cause: error },
    );
  return new SlimeError("state.damaged", `${path} could not be written`, { path, where: "end" }, { cause: error });
}
