import { readdirSync, readFileSync } from "node:fs";
import { type Clock, sleep } from "@slime/core";

const termMs = 2_000;
const pollMs = 50;

/**
 * Ends every process this one still has below it: SIGTERM to all, SIGKILL after two seconds. Whatever an actor supervised
 * (an engine, a trainer rank) does not outlive its host. Needs /proc; elsewhere it finds none and the daemon's process group decides.
 */
export async function endChildren(clock: Clock, pid: number = process.pid): Promise<void> {
  const first = descendants(pid);
  for (const child of first) signal(child, "SIGTERM");
  const until = clock.nowMs() + termMs;
  while (descendants(pid).length > 0 && clock.nowMs() < until) await sleep(clock, pollMs);
  for (const child of descendants(pid)) signal(child, "SIGKILL");
}

/** Living processes below `pid`, children before grandchildren. */
function descendants(pid: number): number[] {
  const found: number[] = [];
  const visit = (parent: number) => {
    for (const child of childrenOf(parent)) {
      if (state(child) === "Z") continue;
      found.push(child);
      visit(child);
    }
  };
  visit(pid);
  return found;
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").split(" ").filter(Boolean).map(Number),
    );
  } catch {
    return [];
  }
}

function state(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2, text.lastIndexOf(")") + 3);
  } catch {
    return "Z";
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has just ended: what was wanted.
  }
}
