/**
 * Decides when an actor's calls start. No I/O, no time: the promises of the methods drive it.
 * X1 calls of one group start in the order they came; a call whose arguments are still read holds back later ones.
 * X2 at most `size` calls of a group run. X3 at most `pendingMax` calls wait over all groups; more are refused.
 * X4 the urgent group is apart: it has its own room and takes none of the others'.
 */
export interface ExecutorOptions {
  /** Calls at once outside any named group. */
  readonly concurrency: number;
  readonly groups: Readonly<Record<string, number>>;
  readonly urgentMax: number;
  readonly pendingMax: number;
}

export interface Job {
  /** Arguments to wait for before it may start. */
  readonly ready: Promise<unknown> | null;
  /** Runs the call; may throw, may return a promise. Never called twice. */
  readonly run: () => unknown;
}

export interface Executor {
  /** The group's name: null for the default one. @throws RangeError for an unknown group. */
  readonly submit: (group: string | null, urgent: boolean, job: Job) => unknown;
  readonly pending: () => number;
  readonly running: () => number;
  /** Resolves when nothing runs or waits. */
  readonly idle: () => Promise<void>;
}

/** `submit` returned this: the queue is full. */
export const refusedFull: unique symbol = Symbol("full");

interface Waiting {
  readonly job: Job;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  ready: boolean;
}

interface Group {
  readonly size: number;
  running: number;
  queue: Waiting[];
}

export function executor(options: ExecutorOptions): Executor {
  const group = (size: number): Group => ({ size, running: 0, queue: [] });
  const groups = new Map(Object.entries(options.groups).map(([name, size]) => [name, group(size)]));
  const common = group(options.concurrency);
  const urgentGroup = group(options.urgentMax);
  let pending = 0;
  let running = 0;
  let idlers: (() => void)[] = [];

  const finished = (of: Group) => {
    of.running--;
    running--;
    drain(of);
    if (running === 0 && pending === 0) for (const wake of idlers.splice(0)) wake();
  };

  const start = (of: Group, job: Job): unknown => {
    of.running++;
    running++;
    let result: unknown;
    try {
      result = job.run();
    } catch (error) {
      finished(of);
      throw error;
    }
    if (!isPromise(result)) {
      finished(of);
      return result;
    }
    return result.then(
      (value) => {
        finished(of);
        return value;
      },
      (error: unknown) => {
        finished(of);
        throw error;
      },
    );
  };

  const drain = (of: Group) => {
    while (of.running < of.size && of.queue[0]?.ready === true) {
      const next = of.queue.shift() as Waiting;
      pending--;
      try {
        next.resolve(start(of, next.job));
      } catch (error) {
        next.reject(error);
      }
    }
  };

  return {
    submit(name, urgent, job) {
      const of = urgent ? urgentGroup : name === null ? common : groups.get(name);
      if (of === undefined) throw new RangeError(`no concurrency group ${name}; it has ${[...groups.keys()].join(", ") || "none"}`);
      if (job.ready === null && of.running < of.size && of.queue.length === 0) return start(of, job);
      if (of.queue.length >= (urgent ? options.urgentMax : options.pendingMax) || (!urgent && pending >= options.pendingMax)) return refusedFull;
      pending++;
      return new Promise((resolve, reject) => {
        const waiting: Waiting = { job, resolve, reject, ready: job.ready === null };
        of.queue.push(waiting);
        const proceed = () => {
          waiting.ready = true;
          drain(of);
        };
        // A failed read of the arguments surfaces when the call runs.
        job.ready?.then(proceed, proceed);
      });
    },
    pending: () => pending,
    running: () => running,
    idle: () => (running === 0 && pending === 0 ? Promise.resolve() : new Promise((resolve) => idlers.push(resolve))),
  };
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
