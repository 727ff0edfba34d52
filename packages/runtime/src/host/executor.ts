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

/** A call that has to wait. */
export interface Job {
  /** Arguments to wait for before it may start. */
  readonly ready: Promise<unknown> | null;
  /** Runs the call; may throw, may return a promise. Never called twice. */
  readonly run: () => unknown;
}

/** One group's room. */
export interface Group {
  readonly size: number;
  running: number;
  queue: Waiting[];
}

export interface Executor {
  /** The named group, or the default one for null; undefined: there is none of this name. */
  readonly group: (name: string | null, urgent: boolean) => Group | undefined;
  /** Takes a place at once when one is free and nobody waits; then `leave` must follow. The hot path. */
  readonly enter: (group: Group) => boolean;
  readonly leave: (group: Group) => void;
  /** Queues a call; resolves with its outcome. `refusedFull` when too many wait. */
  readonly submit: (group: Group, job: Job) => Promise<unknown> | typeof refusedFull;
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

/** The executor of one life of an actor. */
export function executor(options: ExecutorOptions): Executor {
  const roomFor = (size: number): Group => ({ size, running: 0, queue: [] });
  const groups = new Map(Object.entries(options.groups).map(([name, size]) => [name, roomFor(size)]));
  const common = roomFor(options.concurrency);
  const urgentGroup = roomFor(options.urgentMax);
  let pending = 0;
  let running = 0;
  const idlers: (() => void)[] = [];

  const restIfIdle = () => {
    if (running === 0 && pending === 0) for (const wake of idlers.splice(0)) wake();
  };

  const leave = (of: Group) => {
    of.running--;
    running--;
    if (of.queue.length > 0) drain(of);
    restIfIdle();
  };

  /** Starts what may start. A method that answers at once makes room within the loop, so a long queue of those needs no deep stack. */
  const drain = (of: Group) => {
    while (of.running < of.size && of.queue[0]?.ready === true) {
      const { job, resolve, reject } = of.queue.shift() as Waiting;
      if (of !== urgentGroup) pending--;
      let result: unknown;
      try {
        result = job.run();
      } catch (error) {
        reject(error);
        continue;
      }
      if (!isPromise(result)) {
        resolve(result);
        continue;
      }
      of.running++;
      running++;
      result.then(
        (value) => {
          resolve(value);
          leave(of);
        },
        (error: unknown) => {
          reject(error);
          leave(of);
        },
      );
    }
  };

  return {
    group: (name, urgent) => (urgent ? urgentGroup : name === null ? common : groups.get(name)),
    enter(of) {
      if (of.running >= of.size || of.queue.length > 0) return false;
      of.running++;
      running++;
      return true;
    },
    leave,
    submit(of, job) {
      if (of === urgentGroup ? of.queue.length >= options.urgentMax : pending >= options.pendingMax) return refusedFull;
      if (of !== urgentGroup) pending++;
      return new Promise((resolve, reject) => {
        const waiting: Waiting = { job, resolve, reject, ready: job.ready === null };
        of.queue.push(waiting);
        const proceed = () => {
          waiting.ready = true;
          drain(of);
          restIfIdle();
        };
        // A failed read of the arguments surfaces when the call runs.
        if (job.ready === null) drain(of);
        else void job.ready.then(proceed, proceed);
      });
    },
    pending: () => pending + urgentGroup.queue.length,
    running: () => running,
    idle: () => (running === 0 && pending === 0 ? Promise.resolve() : new Promise((resolve) => idlers.push(resolve))),
  };
}

/** Whatever has a `then`: user code may return promises of another realm. */
export function isPromise(value: unknown): value is Promise<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
