import { type FileHandle, open } from "node:fs/promises";
import { type Clock, SlimeError } from "@slime/core";

/** One line of `metrics.jsonl`: what was measured at one step of one axis. */
export interface MetricsLine {
  readonly v: 1;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** The axis: "train/step", "rollout/step", "eval/step". */
  readonly axis: string;
  readonly step: number;
  /** Numbers that JSON lacks are the strings "NaN", "Infinity", "-Infinity". */
  readonly metrics: Readonly<Record<string, number | "NaN" | "Infinity" | "-Infinity">>;
}

export interface MetricsFile extends AsyncDisposable {
  /** Appends a line; lines keep the order of the calls. Settles when it is written. @throws SlimeError `disk.full`. */
  readonly write: (axis: string, step: number, metrics: Readonly<Record<string, number>>) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** Lines that may wait for the disk. */
const waitingMax = 1_000;

/** Opens `metrics.jsonl` for appending. A half line left by a kill is ended first, so that it spoils itself only. */
export async function openMetricsFile(path: string, clock: Clock): Promise<MetricsFile> {
  const file = await open(path, "a+");
  let last: Promise<void> = endHalfLine(file);
  let waiting = 0;
  await last;
  const metricsFile: MetricsFile = {
    write(axis, step, metrics) {
      if (waiting >= waitingMax)
        throw new SlimeError("wire.limit", `${path}: ${waiting} lines already wait for the disk`, {
          what: "metrics lines waiting",
          value: waiting,
          max: waitingMax,
        });
      waiting++;
      const line: MetricsLine = {
        v: 1,
        at: clock.wallMs(),
        axis,
        step,
        metrics: Object.fromEntries(Object.entries(metrics).map(([name, value]) => [name, plainNumber(value)])),
      };
      const write = last.then(() => append(file, path, `${JSON.stringify(line)}\n`)).finally(() => waiting--);
      last = write.catch(() => {}); // the caller is told by its own promise; the next line is tried all the same
      return write;
    },
    async close() {
      await last;
      await file.close();
    },
    [Symbol.asyncDispose]: () => metricsFile.close(),
  };
  return metricsFile;
}

async function append(file: FileHandle, path: string, text: string): Promise<void> {
  try {
    await file.appendFile(text);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC")
      throw new SlimeError(
        "disk.full",
        `no space left to write ${path}; free some and resume`,
        { path, needed: Buffer.byteLength(text) },
        { cause: error },
      );
    throw error;
  }
}

async function endHalfLine(file: FileHandle): Promise<void> {
  const { size } = await file.stat();
  if (size === 0) return;
  const last = Buffer.alloc(1);
  await file.read(last, 0, 1, size - 1);
  if (last[0] !== 10) await file.appendFile("\n");
}

function plainNumber(value: number): number | "NaN" | "Infinity" | "-Infinity" {
  if (Number.isFinite(value)) return value;
  return Number.isNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}
