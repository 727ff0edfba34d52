import { execFile } from "node:child_process";
import { hostname } from "node:os";
import { exists } from "./kill-tree.js";
import type { ProcessEntry, ProcessTable } from "./process-table.js";

/** Start times are whole seconds of the wall clock and may be rounded either way from one call to the next. */
const startSlackMs = 2_000;
const psTimeoutMs = 10_000;
const psBytesMax = 64 * 1024 * 1024;

interface Row extends ProcessEntry {
  readonly state: string;
  readonly cpuMs: number;
}

/** Output of a program, or the empty string when it is missing, fails or finds nothing (`ps -p` exits 1). */
function output(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const options = { timeout: psTimeoutMs, maxBuffer: psBytesMax, env: { ...process.env, LC_ALL: "C" } };
    execFile(command, [...args], options, (_error, stdout) => resolve(stdout));
  });
}

/** `[[dd-]hh:]mm:ss[.cc]` as milliseconds. */
export function parseCpuTime(text: string): number {
  const [clock = "", days = "0"] = text.split("-").reverse();
  const seconds = clock.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
  return (Number(days) * 86_400 + seconds) * 1000;
}

/** One line of `ps -o pid=,ppid=,pgid=,stat=,time=,lstart=`. */
export function parsePsRow(line: string): Row | null {
  const match = /^\s*(\d+)\s+(\d+)\s+(-?\d+)\s+(\S+)\s+(\S+)\s+(\S.*\S)\s*$/.exec(line);
  if (match === null) return null;
  const [, pid, parent, group, state = "", time = "", startTime = ""] = match;
  return { pid: Number(pid), parentPid: Number(parent), groupId: Number(group), state, cpuMs: parseCpuTime(time), startTime };
}

/** The rows of what lives: zombies do not (P2). */
function living(text: string): readonly Row[] {
  return text
    .split("\n")
    .flatMap((line) => parsePsRow(line) ?? [])
    .filter((row) => !row.state.startsWith("Z"));
}

/** Processes by `ps`: slower (tens of milliseconds a call), and an identity is exact to two seconds only. */
export function portableProcesses(): ProcessTable {
  let boot: Promise<string> | undefined;
  const columns = "pid=,ppid=,pgid=,stat=,time=,lstart=";
  const rows = async (selection: readonly string[]): Promise<readonly Row[]> => living(await output("ps", [...selection, "-o", columns]));
  const one = async (pid: number) => (await rows(["-p", String(pid)]))[0] ?? null;
  const entry = ({ pid, parentPid, groupId, startTime }: Row): ProcessEntry => ({ pid, parentPid, groupId, startTime });
  // Start times are dates, so they tell boots apart by themselves where the system has no name for a boot.
  const bootId = () => (boot ??= output("sysctl", ["-n", "kern.bootsessionuuid"]).then((text) => text.trim() || `portable-${hostname()}`));
  return {
    kind: "portable",
    bootId,
    identify: async (pid) => {
      const row = await one(pid);
      return row === null ? null : { bootId: await bootId(), pid, startTime: row.startTime };
    },
    isAlive: async (identity) => {
      if (!exists(identity.pid) || identity.bootId !== (await bootId())) return false;
      const said = await output("ps", ["-p", String(identity.pid), "-o", columns]);
      if (said === "" && exists(identity.pid)) return true; // `ps` could not be asked: who answers to signals is not called dead
      const [row] = living(said);
      return row !== undefined && Math.abs(Date.parse(row.startTime) - Date.parse(identity.startTime)) <= startSlackMs;
    },
    list: async () => (await rows(["-A"])).map(entry),
    marked: async (mark) => {
      const environments = await output(
        "ps",
        process.platform === "darwin" ? ["-A", "-E", "-ww", "-o", "pid=,command="] : ["axeww", "-o", "pid=,args="],
      );
      const wanted = `${mark.name}=${mark.value}`;
      const pids = new Set(
        environments
          .split("\n")
          .filter((line) => line.split(" ").includes(wanted))
          .map((line) => Number.parseInt(line, 10)),
      );
      return (await rows(["-A"])).filter((row) => row.pid !== process.pid && pids.has(row.pid)).map(entry);
    },
    commandLine: async (pid) => {
      if ((await one(pid)) === null) return null;
      return (await output("ps", ["-ww", "-p", String(pid), "-o", "args="])).trimEnd();
    },
    activity: async (pid) => {
      const row = await one(pid);
      return row === null ? null : { cpuMs: row.cpuMs, stopped: row.state.startsWith("T"), runnable: /^[RDU]/.test(row.state) };
    },
  };
}
