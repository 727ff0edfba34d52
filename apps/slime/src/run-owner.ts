import { hostname } from "node:os";
import { invariant } from "@slime/core";
import { detectPlatform } from "@slime/platform";
import type { RunOwner } from "@slime/training";

/** This process, as a run directory's lock names it; also who can tell whether another owner on this machine lives. */
export async function runOwner(): Promise<RunOwner> {
  const { processes } = detectPlatform(process.env);
  const self = await processes.identify(process.pid);
  invariant(self !== null, "this process is in the process table");
  return {
    pid: process.pid,
    host: hostname(),
    birth: `${self.bootId} ${self.startTime}`,
    isAlive: async ({ pid, birth }) => {
      const [bootId = "", ...startTime] = birth.split(" ");
      return processes.isAlive({ bootId, pid, startTime: startTime.join(" ") });
    },
  };
}
