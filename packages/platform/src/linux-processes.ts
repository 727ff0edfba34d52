import { readdirSync, readFileSync } from "node:fs";
import type { ProcessEntry, ProcessIdentity, ProcessMark, ProcessTable } from "./process-table.js";

/** Ticks a second of /proc's times: USER_HZ, 100 on every architecture Linux has a Node for. */
const ticksPerSecond = 100;

interface Stat extends ProcessEntry {
  readonly state: string;
  readonly cpuTicks: number;
}

/** The fields of `/proc/PID/stat` that matter. The name in parentheses may hold anything, so fields count from the last ")". */
export function parseStat(text: string): Stat | null {
  const close = text.lastIndexOf(")");
  const pid = Number.parseInt(text, 10);
  const fields = text.slice(close + 2).split(" ");
  const [state, parent, group] = fields;
  const startTime = fields[19];
  if (close < 0 || !Number.isInteger(pid) || state === undefined || startTime === undefined) return null;
  return { pid, parentPid: Number(parent), groupId: Number(group), startTime, state, cpuTicks: Number(fields[11]) + Number(fields[12]) };
}

function isLiving(stat: Stat): boolean {
  return stat.state !== "Z" && stat.state !== "X" && stat.state !== "x";
}

/** True when one NUL-terminated entry of an environment is the mark, as a whole. */
export function carriesMark(environ: Buffer, mark: ProcessMark): boolean {
  const wanted = Buffer.from(`${mark.name}=${mark.value}`);
  for (let at = environ.indexOf(wanted); at >= 0; at = environ.indexOf(wanted, at + 1)) {
    const end = at + wanted.length;
    if ((at === 0 || environ[at - 1] === 0) && (end === environ.length || environ[end] === 0)) return true;
  }
  return false;
}

/** Processes by `/proc`. @param root where it is mounted, for tests. */
export function linuxProcesses(root = "/proc"): ProcessTable {
  let boot: string | undefined;
  const read = (path: string): Buffer | null => {
    try {
      return readFileSync(`${root}/${path}`);
    } catch {
      return null; // gone meanwhile, or another user's
    }
  };
  const stat = (pid: number): Stat | null => {
    const text = read(`${pid}/stat`);
    const parsed = text === null ? null : parseStat(text.toString("latin1"));
    return parsed !== null && isLiving(parsed) ? parsed : null;
  };
  const bootId = () => (boot ??= (read("sys/kernel/random/boot_id") ?? Buffer.from("unknown")).toString().trim());
  const list = (): ProcessEntry[] =>
    readdirSync(root)
      .filter((name) => /^\d+$/.test(name))
      .flatMap((name) => stat(Number(name)) ?? [])
      .map(({ pid, parentPid, groupId, startTime }) => ({ pid, parentPid, groupId, startTime }));
  const identify = (pid: number): ProcessIdentity | null => {
    const found = stat(pid);
    return found === null ? null : { bootId: bootId(), pid, startTime: found.startTime };
  };
  return {
    kind: "linux",
    bootId: async () => bootId(),
    identify: async (pid) => identify(pid),
    isAlive: async (identity) => identity.bootId === bootId() && stat(identity.pid)?.startTime === identity.startTime,
    list: async () => list(),
    marked: async (mark) =>
      list().filter((entry) => entry.pid !== process.pid && carriesMark(read(`${entry.pid}/environ`) ?? Buffer.alloc(0), mark)),
    commandLine: async (pid) => {
      const words = stat(pid) === null ? null : read(`${pid}/cmdline`);
      return words === null ? null : words.toString("utf8").replaceAll("\0", " ").trimEnd();
    },
    activity: async (pid) => {
      const found = stat(pid);
      return found === null
        ? null
        : {
            cpuMs: (found.cpuTicks * 1000) / ticksPerSecond,
            stopped: found.state === "T" || found.state === "t",
            runnable: found.state === "R" || found.state === "D",
          };
    },
  };
}
