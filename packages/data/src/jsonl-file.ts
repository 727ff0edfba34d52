/**
 * A JSONL file as rows: read once from end to end to find and check every line, then row by row from where it lies, so that only
 * offsets stay in memory.
 * Invariants: J1 all bad lines are reported together (the first `badLinesMax` by name, the rest by number), none is skipped silently;
 * J2 blank lines are no rows; J3 a line longer than `lineBytesMax` is never held in memory.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { SlimeError } from "@slime/core";

/** Longest line: a prompt beyond this is a mistake, not a prompt. */
export const lineBytesMax = 4 * 1024 * 1024;
/** Most rows of one file. */
export const rowsMax = 100_000_000;
/** Bad lines that are named one by one. */
export const badLinesMax = 20;

const chunkBytes = 1024 * 1024;

/** An open, checked file. */
export interface JsonlFile {
  readonly path: string;
  readonly rows: number;
  /** SHA-256 of the whole file, hex: says whether a resumed run still reads the same data. */
  readonly digest: string;
  /** The parsed line of a row. @throws SlimeError `data.invalid` when the file is no longer the one that was opened. */
  readonly read: (row: number) => Promise<unknown>;
  readonly close: () => Promise<void>;
}

/**
 * @param check says what is wrong with a parsed line, and how to mend it; null: nothing.
 * @param wanted names what asked for the file, for the error when it is missing: `--prompt-data`.
 * @throws SlimeError `file.missing`, or `data.invalid` with one issue per bad line.
 */
export async function openJsonl(
  path: string,
  options: {
    readonly wanted: string;
    readonly check: (value: unknown, row: number) => string | null;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<JsonlFile> {
  const handle = await opened(path, options.wanted);
  try {
    return await scan(handle, path, options);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function opened(path: string, wanted: string): Promise<FileHandle> {
  try {
    const handle = await open(path, "r");
    if ((await handle.stat()).isFile()) return handle;
    await handle.close();
  } catch (error) {
    throw new SlimeError(
      "file.missing",
      `${wanted}: cannot read ${path}: check the path and its permissions`,
      { path, wanted },
      { cause: error },
    );
  }
  throw new SlimeError("file.missing", `${wanted}: ${path} is not a file`, { path, wanted });
}

async function scan(
  handle: FileHandle,
  path: string,
  options: { readonly check: (value: unknown, row: number) => string | null; readonly signal?: AbortSignal | undefined },
): Promise<JsonlFile> {
  const rows = new RowTable();
  const issues: string[] = [];
  let badLines = 0;
  const bad = (line: number, what: string) => {
    badLines++;
    if (issues.length < badLinesMax) issues.push(`${path}:${line}: ${what}`);
  };
  const hash = createHash("sha256");
  const lines = new LineSplitter((line) => {
    if (line.kind === "long")
      return bad(
        line.number,
        `the line has ${line.bytes} bytes, more than lineBytesMax (${lineBytesMax}): shorten its prompt or remove the line`,
      );
    const parsed = parse(line.bytes, line.number === 1);
    if (parsed.kind === "blank") return;
    const issue = parsed.kind === "bad" ? parsed.issue : options.check(parsed.value, rows.count);
    if (issue !== null) return bad(line.number, issue);
    if (rows.count >= rowsMax)
      throw new SlimeError("data.invalid", `${path}: more than rowsMax (${rowsMax}) rows: split the file`, {
        file: path,
        issues: [`${path}:${line.number}: row ${rowsMax + 1}`],
      });
    rows.add(line.start, line.bytes.length, line.number);
  });
  const chunk = Buffer.allocUnsafe(chunkBytes);
  for (;;) {
    options.signal?.throwIfAborted();
    const { bytesRead } = await handle.read(chunk, 0, chunkBytes, lines.position);
    if (bytesRead === 0) break;
    const bytes = chunk.subarray(0, bytesRead);
    hash.update(bytes);
    lines.push(bytes);
  }
  lines.end();
  if (badLines > 0) {
    if (badLines > issues.length) issues.push(`${path}: and ${badLines - issues.length} more bad lines`);
    throw new SlimeError("data.invalid", `${badLines} bad ${badLines === 1 ? "line" : "lines"} in ${path}:\n${issues.join("\n")}`, {
      file: path,
      issues,
    });
  }
  return {
    path,
    rows: rows.count,
    digest: hash.digest("hex"),
    async read(row) {
      const { start, length, line } = rows.at(row);
      const bytes = Buffer.allocUnsafe(length);
      const { bytesRead } = await handle.read(bytes, 0, length, start);
      const parsed = bytesRead === length ? parse(bytes, start === 0) : ({ kind: "bad", issue: "" } as const);
      if (parsed.kind === "json") return parsed.value;
      const issue = `${path}:${line}: changed while the run reads it: put the file back, or start anew`;
      throw new SlimeError("data.invalid", issue, { file: path, issues: [issue] });
    },
    close: () => handle.close(),
  };
}

type Parsed =
  | { readonly kind: "json"; readonly value: unknown }
  | { readonly kind: "blank" }
  | { readonly kind: "bad"; readonly issue: string };

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function parse(bytes: Uint8Array, first: boolean): Parsed {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    return { kind: "bad", issue: "is not UTF-8: save the file as UTF-8" };
  }
  if (first && text.startsWith("\uFEFF")) text = text.slice(1);
  if (text.trim() === "") return { kind: "blank" };
  try {
    return { kind: "json", value: JSON.parse(text) as unknown };
  } catch (error) {
    return { kind: "bad", issue: `is not JSON (${error instanceof Error ? error.message.slice(0, 120) : "?"}): mend or remove the line` };
  }
}

type Line =
  | { readonly kind: "line"; readonly number: number; readonly start: number; readonly bytes: Uint8Array }
  | { readonly kind: "long"; readonly number: number; readonly bytes: number };

/** Cuts chunks into lines; holds at most one line of `lineBytesMax`. */
class LineSplitter {
  readonly #emit: (line: Line) => void;
  #pieces: Buffer[] = [];
  #held = 0;
  #start = 0;
  #number = 1;
  /** Bytes seen so far. */
  position = 0;

  constructor(emit: (line: Line) => void) {
    this.#emit = emit;
  }

  push(chunk: Buffer): void {
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, from)) {
      this.#hold(chunk.subarray(from, end));
      this.#flush(this.position + end + 1);
      from = end + 1;
    }
    // A copy: the chunk's memory is read into again.
    this.#hold(Buffer.from(chunk.subarray(from)));
    this.position += chunk.length;
  }

  end(): void {
    if (this.#held > 0) this.#flush(this.position);
  }

  #hold(piece: Buffer): void {
    this.#held += piece.length;
    if (this.#held > lineBytesMax) this.#pieces = [];
    else this.#pieces.push(piece);
  }

  #flush(next: number): void {
    const number = this.#number++;
    if (this.#held > lineBytesMax) this.#emit({ kind: "long", number, bytes: this.#held });
    else
      this.#emit({
        kind: "line",
        number,
        start: this.#start,
        bytes: this.#pieces.length === 1 ? (this.#pieces[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#pieces),
      });
    this.#pieces = [];
    this.#held = 0;
    this.#start = next;
  }
}

/** Where rows lie: three numbers a row, in arrays that double. */
class RowTable {
  count = 0;
  #starts = new Float64Array(1024);
  #lengths = new Int32Array(1024);
  #lines = new Float64Array(1024);

  add(start: number, length: number, line: number): void {
    if (this.count === this.#starts.length) {
      const more = this.count * 2;
      const starts = new Float64Array(more);
      starts.set(this.#starts);
      const lengths = new Int32Array(more);
      lengths.set(this.#lengths);
      const lines = new Float64Array(more);
      lines.set(this.#lines);
      [this.#starts, this.#lengths, this.#lines] = [starts, lengths, lines];
    }
    this.#starts[this.count] = start;
    this.#lengths[this.count] = length;
    this.#lines[this.count] = line;
    this.count++;
  }

  at(row: number): { readonly start: number; readonly length: number; readonly line: number } {
    return { start: this.#starts[row] ?? 0, length: this.#lengths[row] ?? 0, line: this.#lines[row] ?? 0 };
  }
}
