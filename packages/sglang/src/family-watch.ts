import type { Clock, Timer } from "@slime/core";
import type { ProcessEntry, ProcessIdentity, ProcessTable } from "@slime/platform";

/** How often known members are looked at, and how often new ones are looked for. */
const lookEveryMs = 500;
const listEveryMs = 5_000;

export interface FamilyWatchOptions {
  /** The process whose descendants matter. */
  readonly pid: number;
  readonly processes: ProcessTable;
  readonly clock: Clock;
  /** By command line: a member whose end is the end of the whole. */
  readonly isVital: (commandLine: string) => boolean;
  /** Called once, at the first end of a vital member. */
  readonly onEnd: (member: { readonly pid: number; readonly commandLine: string }) => void;
}

export interface FamilyWatch extends Disposable {
  /** Looks for members now: whoever is there and vital by then is watched from then on. Resolves with how many are watched. */
  readonly look: () => Promise<number>;
}

/**
 * Watches the vital descendants of a process. SGLang notices a dead scheduler or detokenizer by itself, but takes 5 to 66 s to end,
 * with its port open all the while; here it is known within a second.
 */
export function watchFamily(options: FamilyWatchOptions): FamilyWatch {
  const { clock, processes } = options;
  const members = new Map<number, { readonly identity: ProcessIdentity; readonly commandLine: string }>();
  let timer: Timer | null = null;
  let listAtMs = clock.nowMs();
  let disposed = false;
  const list = async (): Promise<number> => {
    for (const { pid } of descendantsOf(options.pid, await processes.list())) {
      if (members.has(pid)) continue;
      const commandLine = await processes.commandLine(pid);
      const identity = commandLine !== null && options.isVital(commandLine) ? await processes.identify(pid) : null;
      if (commandLine !== null && identity !== null) members.set(pid, { identity, commandLine });
    }
    return members.size;
  };
  const look = async () => {
    for (const [pid, { identity, commandLine }] of members) {
      if (disposed || (await processes.isAlive(identity))) continue;
      if (disposed) return;
      disposed = true;
      options.onEnd({ pid, commandLine });
      return;
    }
    if (clock.nowMs() >= listAtMs) {
      // A family that is still forming changes often.
      listAtMs = clock.nowMs() + (members.size === 0 ? lookEveryMs : listEveryMs);
      await list();
    }
  };
  const schedule = () => {
    if (disposed) return;
    timer = clock.after(lookEveryMs, () => void look().then(schedule));
  };
  schedule();
  return {
    look: list,
    [Symbol.dispose]() {
      disposed = true;
      timer?.cancel();
    },
  };
}

function descendantsOf(root: number, all: readonly ProcessEntry[]): readonly ProcessEntry[] {
  const children = new Map<number, ProcessEntry[]>();
  for (const entry of all) children.set(entry.parentPid, [...(children.get(entry.parentPid) ?? []), entry]);
  const found: ProcessEntry[] = [];
  const queue = [root];
  for (let parent = queue.pop(); parent !== undefined; parent = queue.pop()) {
    for (const child of children.get(parent) ?? []) {
      found.push(child);
      queue.push(child.pid);
    }
  }
  return found;
}
