import { accessSync, constants } from "node:fs";
import { tmpdir } from "node:os";
import { SlimeError } from "@slime/core";
import { linuxProcesses } from "./linux-processes.js";
import { linuxOomCounter, noOomCounter, type OomCounter } from "./oom.js";
import { portableProcesses } from "./portable-processes.js";
import type { ProcessTable } from "./process-table.js";

/** What this machine offers, chosen once at start and handed down. */
export interface Platform {
  readonly kind: "linux" | "portable";
  readonly processes: ProcessTable;
  /** Where shared memory lies: a directory of RAM-backed files on Linux, a plain temporary directory elsewhere. */
  readonly sharedMemoryRoot: string;
  readonly oomKills: OomCounter;
}

/**
 * The platform of this process. `SLIME_PLATFORM=portable` in `env` switches every Linux facility off (no /proc, no
 * /dev/shm, no cgroups), which is how the fallback is tested on Linux.
 * @throws SlimeError `config.invalid` for another value of it.
 */
export function detectPlatform(env: Readonly<Record<string, string | undefined>> = process.env): Platform {
  const wanted = env["SLIME_PLATFORM"] ?? "";
  if (wanted !== "" && wanted !== "portable" && wanted !== "linux") {
    const issue = `SLIME_PLATFORM is ${JSON.stringify(wanted)}: set it to "linux" or "portable", or leave it out`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  if (wanted === "portable" || (wanted === "" && process.platform !== "linux")) {
    return { kind: "portable", processes: portableProcesses(), sharedMemoryRoot: tmpdir(), oomKills: noOomCounter };
  }
  return {
    kind: "linux",
    processes: linuxProcesses(),
    sharedMemoryRoot: writable("/dev/shm") ? "/dev/shm" : tmpdir(),
    oomKills: linuxOomCounter(),
  };
}

function writable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
