import { readFileSync } from "node:fs";
import { availableParallelism, freemem, totalmem } from "node:os";
import { cgroupPath } from "./oom.js";
import type { Platform } from "./platform.js";

/** Processors and memory that this process may use. */
export interface MachineLimits {
  /** At least 1; fractions of a control group's quota are kept. */
  readonly cpus: number;
  readonly memoryMib: number;
}

/** Reads a file, or gives null. A parameter so that tests can play a control group. */
export type ReadText = (path: string) => string | null;

const readSystem: ReadText = (path) => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
};

/** The smaller of what the machine has and what its control groups grant (v1 and v2). */
export function machineLimits(kind: Platform["kind"], read: ReadText = readSystem): MachineLimits {
  const cpus = availableParallelism();
  const memoryMib = Math.floor(totalmem() / 2 ** 20);
  if (kind === "portable") return { cpus, memoryMib };
  const own = read("/proc/self/cgroup") ?? "";
  const quota = cpuQuota(own, read);
  const limit = memoryLimit(own, read);
  return {
    cpus: Math.max(1, Math.min(cpus, quota ?? cpus)),
    memoryMib: Math.min(memoryMib, limit === null ? memoryMib : Math.floor(limit / 2 ** 20)),
  };
}

/** Memory that a new process could have now, MiB. */
export function memoryFreeMib(kind: Platform["kind"], read: ReadText = readSystem): number {
  const available = kind === "portable" ? null : /^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo") ?? "");
  return Math.floor(available === null ? freemem() / 2 ** 20 : Number(available[1]) / 1024);
}

function cpuQuota(own: string, read: ReadText): number | null {
  const unified = cgroupPath(own, "");
  const [quota, period] = (unified === null ? null : read(`/sys/fs/cgroup${unified}/cpu.max`))?.trim().split(" ") ?? [];
  if (quota !== undefined && quota !== "max" && period !== undefined) return Number(quota) / Number(period);
  const base = `/sys/fs/cgroup/cpu${cgroupPath(own, "cpu") ?? ""}`;
  const quotaV1 = Number(read(`${base}/cpu.cfs_quota_us`) ?? -1);
  const periodV1 = Number(read(`${base}/cpu.cfs_period_us`) ?? 0);
  return quotaV1 > 0 && periodV1 > 0 ? quotaV1 / periodV1 : null;
}

function memoryLimit(own: string, read: ReadText): number | null {
  const unified = cgroupPath(own, "");
  const memory = cgroupPath(own, "memory");
  const texts = [
    unified === null ? null : read(`/sys/fs/cgroup${unified}/memory.max`),
    memory === null ? null : read(`/sys/fs/cgroup/memory${memory}/memory.limit_in_bytes`),
  ];
  const limits = texts.map((text) => Number.parseInt(text ?? "", 10)).filter((bytes) => bytes > 0);
  return limits.length === 0 ? null : Math.min(...limits);
}
