import { open } from "node:fs/promises";

/** Bytes of a log taken at once, and of one line kept until it ends. */
const readBytesMax = 1 << 20;
const lineBytesMax = 1 << 16;

export interface LogFollower {
  /** The whole lines written since the last call, in order. */
  readonly read: () => Promise<readonly string[]>;
}

/** Follows a log from `fromByte` on. A carriage return ends a line too: progress bars write so. A file that is not there yet is empty. */
export function followLog(path: string, fromByte: number): LogFollower {
  let at = fromByte;
  let rest = "";
  return {
    async read() {
      const text = await readFrom(path, at);
      at += text.length;
      const lines = (rest + text.toString("latin1")).split(/[\n\r]/);
      rest = (lines.pop() ?? "").slice(-lineBytesMax);
      return lines.filter((line) => line.trim() !== "").map((line) => Buffer.from(line, "latin1").toString("utf8"));
    },
  };
}

async function readFrom(path: string, at: number): Promise<Buffer> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, "r");
  } catch {
    return Buffer.alloc(0);
  }
  try {
    const bytes = Math.min(readBytesMax, (await file.stat()).size - at);
    if (bytes <= 0) return Buffer.alloc(0);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, at);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** What SGLang's log lines (0.5.11 to 0.5.23) say of its start; the first that matches counts. */
const phases: readonly (readonly [RegExp, (found: RegExpExecArray) => string])[] = [
  [/(?:safetensors checkpoint|pt checkpoint|checkpoint|loading) shards:.*?(\d+)\/(\d+)/i, ([, n, of]) => `loading weights ${n}/${of}`],
  [/Capturing (?:batches|num tokens).*?(\d+)\/(\d+)/, ([, n, of]) => `capturing graphs ${n}/${of}`],
  [/Capturing (?:batches|num tokens)|Capture .*graph.* begin/i, () => "capturing graphs"],
  [/Init torch distributed begin/, () => "joining the process group"],
  [/Load weight begin/, () => "loading weights"],
  [/Load weight end/, () => "weights loaded"],
  [/KV Cache is allocated/, () => "cache allocated"],
  [/Application startup complete|Uvicorn running on/, () => "warming up"],
  [/fired up and ready to roll/, () => "ready"],
];

/** What a line says the server is doing; null: nothing of the kind. */
export function serverPhase(line: string): string | null {
  for (const [pattern, words] of phases) {
    const found = pattern.exec(line);
    if (found !== null) return words(found);
  }
  return null;
}

/** A health probe's own trace in the log: written for every one of ours, so it says nothing. */
const ownProbe = /"GET \/health/;

/** The line without what differs from one repetition to the next though nothing happened: the time it was written. */
function essence(line: string): string {
  return line.replace(/^\[[^\]]*\]\s*/, "").replace(/\d{2}:\d{2}:\d{2}(?:\.\d+)?/g, "");
}

/** Tells lines that say that something goes on from those that only repeat themselves. */
export function progressTeller(): (line: string) => boolean {
  const recent: string[] = [];
  return (line) => {
    const words = essence(line);
    if (ownProbe.test(line) || recent.includes(words)) return false;
    recent.push(words);
    if (recent.length > 8) recent.shift();
    return true;
  };
}
