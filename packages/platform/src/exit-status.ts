import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { lastLines } from "./files.js";

/** How a process ended. All null: nobody was left to see it. */
export interface ExitStatus {
  readonly exitCode: number | null;
  readonly signal: string | null;
}

/** By number; of two names for one signal (SIGABRT, SIGIOT) the first. */
const signalNames = new Map(
  Object.entries(constants.signals)
    .reverse()
    .map(([name, number]) => [number, name]),
);

/** A shell's `$?`: 128 + n is signal n. (A process that exits with such a code by itself is read as killed; a shell cannot tell.) */
export function exitStatusOf(shellStatus: number): ExitStatus {
  const signal = shellStatus > 128 ? signalNames.get(shellStatus - 128) : undefined;
  return signal === undefined ? { exitCode: shellStatus, signal: null } : { exitCode: null, signal };
}

/** The status that the waiting shell left, or null while there is none. */
export function readExitFile(path: string): ExitStatus | null {
  try {
    const text = readFileSync(path, "utf8");
    return /^\d+\n$/.test(text) ? exitStatusOf(Number(text)) : null;
  } catch {
    return null;
  }
}

/** What is known of a death, in the fields of core's `DeathRecord`. */
export interface HowItDied extends ExitStatus {
  readonly oom: boolean;
  readonly message: string;
  /** Newest last, at most 20. */
  readonly stderrTail: readonly string[];
}

const heapExhausted = /JavaScript heap out of memory|Reached heap limit/;

export interface DeathEvidence {
  readonly status: ExitStatus;
  readonly stderr: string;
  /** The machine's count of memory kills before it started and after it died; null when unknown. */
  readonly oomKills: { readonly before: number | null; readonly after: number | null };
  /** A SIGKILL of our own is no evidence of the kernel's. */
  readonly killedByUs: boolean;
}

/** Puts a death in words. */
export async function describeDeath(evidence: DeathEvidence): Promise<HowItDied> {
  const { status } = evidence;
  const stderrTail = await lastLines(evidence.stderr);
  const { before, after } = evidence.oomKills;
  const kernel = status.signal === "SIGKILL" && !evidence.killedByUs && before !== null && after !== null && after > before;
  const heap = status.signal === "SIGABRT" && stderrTail.some((line) => heapExhausted.test(line));
  return { ...status, oom: kernel || heap, message: inWords(status, { kernel, heap, killedByUs: evidence.killedByUs }), stderrTail };
}

function inWords(status: ExitStatus, by: { readonly kernel: boolean; readonly heap: boolean; readonly killedByUs: boolean }): string {
  if (by.kernel)
    return "killed by SIGKILL; the kernel's out-of-memory killer was at work: lower its memory use or give it a larger machine";
  if (by.heap) return "aborted: the JavaScript heap was exhausted; raise --max-old-space-size in NODE_OPTIONS or keep less";
  if (status.signal !== null) return `killed by ${status.signal}${by.killedByUs ? " (sent by its daemon)" : ""}`;
  if (status.exitCode === 127) return "exit code 127: the command was not found";
  if (status.exitCode !== null) return `exit code ${status.exitCode}`;
  return "gone; nobody was left to see how it ended";
}

/** Of the last lines a process wrote, the one that says why it ended: nothing indented (frames, fields), no line of Node's own. Null: it said nothing. */
export function lastWords(lines: readonly string[]): string | null {
  const noise = /^\s|^$|^Node\.js v\d|^[{}\]]/;
  const said = lines.findLast((line) => !noise.test(line));
  return said === undefined ? null : said.trim().slice(0, lastWordsMax);
}

const lastWordsMax = 300;
