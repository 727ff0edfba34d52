import { readFileSync } from "node:fs";

/** Counts processes killed for memory so far: by our control group where it says so, else on the whole machine. Null: unknown. */
export type OomCounter = () => number | null;

export const noOomCounter: OomCounter = () => null;

/** The number after `oom_kill` in a file of "name value" lines. */
export function parseOomKills(text: string): number | null {
  const match = /^oom_kill (\d+)$/m.exec(text);
  return match === null ? null : Number(match[1]);
}

/** The path of our group in a controller's hierarchy, from `/proc/self/cgroup`; v2 has the empty controller. */
export function cgroupPath(text: string, controller: string): string | null {
  for (const line of text.split("\n")) {
    const [, controllers = "", path = ""] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path !== "" && controllers.split(",").includes(controller)) return path;
  }
  return null;
}

/** Files that count the kernel's kills, nearest first: cgroup v2, cgroup v1, the machine. */
export function linuxOomCounter(): OomCounter {
  const own = read("/proc/self/cgroup") ?? "";
  const unified = cgroupPath(own, "");
  const memory = cgroupPath(own, "memory");
  const files = [
    ...(unified === null ? [] : [`/sys/fs/cgroup${unified}/memory.events`]),
    ...(memory === null ? [] : [`/sys/fs/cgroup/memory${memory}/memory.oom_control`]),
    "/proc/vmstat",
  ];
  return () => {
    for (const file of files) {
      const count = parseOomKills(read(file) ?? "");
      if (count !== null) return count;
    }
    return null;
  };
}

function read(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
