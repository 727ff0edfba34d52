/**
 * What the operating system says of processes. One port with two sides: `/proc` on Linux, `ps` elsewhere and under
 * `SLIME_PLATFORM=portable`. Invariants:
 * P1 a process is its (boot id, pid, start time): a pid that was used again is another process.
 * P2 a zombie is not alive: it answers to signals, but runs nothing and holds nothing.
 */
export interface ProcessIdentity {
  readonly bootId: string;
  readonly pid: number;
  /** Opaque; clock ticks since boot on Linux, a date elsewhere. Compared by the table that made it. */
  readonly startTime: string;
}

/** One living process. */
export interface ProcessEntry {
  readonly pid: number;
  readonly parentPid: number;
  readonly groupId: number;
  readonly startTime: string;
}

/** What a process has done, to tell one that computes from one that hangs. */
export interface ProcessActivity {
  /** Processor time used so far. */
  readonly cpuMs: number;
  /** Stopped by a signal (SIGSTOP) or a tracer. */
  readonly stopped: boolean;
  /** It runs or wants to, at this moment: on a crowded machine a process may want the processor for long and hardly get it. */
  readonly runnable: boolean;
}

/** A variable that every process of ours carries in its environment from exec on. */
export interface ProcessMark {
  readonly name: string;
  readonly value: string;
}

export interface ProcessTable {
  readonly kind: "linux" | "portable";
  /** Names this boot of the machine. */
  readonly bootId: () => Promise<string>;
  /** Null when no such process lives (P2). */
  readonly identify: (pid: number) => Promise<ProcessIdentity | null>;
  readonly isAlive: (identity: ProcessIdentity) => Promise<boolean>;
  /** Every living process that we may see. */
  readonly list: () => Promise<readonly ProcessEntry[]>;
  /** Living processes whose environment at exec carried the mark, ourselves excepted. */
  readonly marked: (mark: ProcessMark) => Promise<readonly ProcessEntry[]>;
  /** The words it was started with, or what it calls itself since, joined by spaces. Null when no such process lives. */
  readonly commandLine: (pid: number) => Promise<string | null>;
  /** Null when no such process lives. */
  readonly activity: (pid: number) => Promise<ProcessActivity | null>;
}
