import { type Clock, sleep } from "@slime/core";
import { errnoOf } from "./io-errors.js";
import type { ProcessEntry, ProcessIdentity, ProcessMark, ProcessTable } from "./process-table.js";

export interface KillTarget {
  readonly identity: ProcessIdentity;
  readonly parent: ProcessIdentity;
  /** Finds what left the group by a session of its own. */
  readonly mark: ProcessMark;
}

export interface KillOptions {
  readonly processes: ProcessTable;
  readonly clock: Clock;
  /** Between SIGTERM and SIGKILL; 0 kills at once. */
  readonly graceMs: number;
}

/** How long the kernel may take to end what was sent SIGKILL, before we say that it did not. */
const killMsMax = 10_000;
const pollMs = 25;

/**
 * Ends a process and everything that came from it: SIGTERM, grace, SIGKILL, children before parents, the waiting shell
 * last so that it can write the exit status. Found by group, by descent and by mark, anew in each round, so that a child
 * born meanwhile is found too. Resolves with the pids that are still there after all: [] unless the kernel will not end them.
 */
export async function killTree(target: KillTarget, options: KillOptions): Promise<readonly number[]> {
  const { processes, clock, graceMs } = options;
  const members = () => membersOf(target, processes);
  const gone = async (untilMs: number): Promise<boolean> => {
    while ((await members()).length > 0) {
      if (clock.nowMs() >= untilMs) return false;
      await sleep(clock, pollMs);
    }
    return true;
  };
  if (graceMs > 0) {
    for (const pid of await members()) signal(pid, "SIGTERM");
    if (await gone(clock.nowMs() + graceMs)) return endParent(target, processes, clock);
  }
  const untilMs = clock.nowMs() + killMsMax;
  do {
    for (const pid of await members()) signal(pid, "SIGKILL");
  } while (!(await gone(Math.min(untilMs, clock.nowMs() + 200))) && clock.nowMs() < untilMs);
  return [...(await members()), ...(await endParent(target, processes, clock))];
}

/** The shell ends by itself once its child has; one that does not (stopped, say) is killed. */
async function endParent(target: KillTarget, processes: ProcessTable, clock: Clock): Promise<readonly number[]> {
  for (let round = 0; await processes.isAlive(target.parent); round++) {
    if (round === 40) signal(target.parent.pid, "SIGKILL");
    if (round === 80) return [target.parent.pid];
    await sleep(clock, pollMs);
  }
  return [];
}

async function membersOf(target: KillTarget, processes: ProcessTable): Promise<number[]> {
  const all = await processes.list();
  const marked = await processes.marked(target.mark);
  const parentLives = all.some((entry) => entry.pid === target.parent.pid) && (await processes.isAlive(target.parent));
  const selfLives = await processes.isAlive(target.identity);
  const roots = new Set([...(selfLives ? [target.identity.pid] : []), ...marked.map((entry) => entry.pid)]);
  // A group's number is used again only after the whole group is gone, so while a marked member or the leader lives it is ours.
  const groupIsOurs = parentLives || marked.some((entry) => entry.groupId === target.parent.pid);
  const group = groupIsOurs ? all.filter((entry) => entry.groupId === target.parent.pid).map((entry) => entry.pid) : [];
  if (parentLives) roots.add(target.parent.pid);
  return childrenFirst(all, new Set([...roots, ...group])).filter((pid) => pid !== target.parent.pid && pid !== process.pid);
}

/** The roots and everything that descends from them, deepest first. */
export function childrenFirst(all: readonly ProcessEntry[], roots: ReadonlySet<number>): number[] {
  const parents = new Map(all.map((entry) => [entry.pid, entry.parentPid]));
  const depthOf = (pid: number): number | null => {
    let ours = false;
    let depth = 0;
    for (let at: number | undefined = pid; at !== undefined && depth <= parents.size; at = parents.get(at), depth++) ours ||= roots.has(at);
    return ours ? depth : null;
  };
  return all
    .flatMap(({ pid }) => {
      const depth = depthOf(pid);
      return depth === null ? [] : [{ pid, depth }];
    })
    .sort((a, b) => b.depth - a.depth || a.pid - b.pid)
    .map(({ pid }) => pid);
}

/** Sends a signal; a process that is gone already is no error. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    process.kill(pid, name);
    return true;
  } catch {
    return false;
  }
}

/** True while the pid names anything, zombies and strangers included: for what only needs to know that a pid is free. */
export function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoOf(error) === "EPERM";
  }
}

/**
 * Ends every living process that carries the mark, whoever started it: the sweep behind "nothing is left".
 * Resolves with the pids that could not be ended.
 */
export async function killMarked(
  mark: ProcessMark,
  options: KillOptions & { readonly except?: ReadonlySet<number> },
): Promise<readonly number[]> {
  const { processes, clock, graceMs, except = new Set<number>() } = options;
  const found = async () => {
    const marked = await processes.marked(mark);
    return childrenFirst(await processes.list(), new Set(marked.map((entry) => entry.pid))).filter(
      (pid) => !except.has(pid) && pid !== process.pid,
    );
  };
  const startMs = clock.nowMs();
  let terminated = false;
  for (let left = await found(); left.length > 0; left = await found()) {
    const waitedMs = clock.nowMs() - startMs;
    if (waitedMs > graceMs + killMsMax) return left;
    const kill = waitedMs >= graceMs;
    if (kill || !terminated) for (const pid of left) signal(pid, kill ? "SIGKILL" : "SIGTERM");
    terminated = true;
    await sleep(clock, pollMs);
  }
  return [];
}
