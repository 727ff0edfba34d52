import type { Sample } from "@slime/backend";
import { type Clock, invariant, SlimeError, type Timer } from "@slime/core";
import type { Scored, WorkerMessage, WorkerStart } from "./protocol.js";
import { type ScoringWorker, startWorker } from "./workers.js";

export interface RewardPoolOptions {
  readonly start: WorkerStart;
  readonly clock: Clock;
  /** Groups scored at once; each has a worker of its own. */
  readonly workers: number;
  /** Time one group may take, once a worker has begun with it. */
  readonly groupMsMax: number;
  /** Time a worker may take to load the user's code. */
  readonly startMsMax: number;
  /** Groups that may wait for a worker; more are refused (`actor.busy` is the caller's to retry). */
  readonly waitingMax: number;
}

export const rewardPoolDefaults = { workers: 1, groupMsMax: 10_000, startMsMax: 30_000, waitingMax: 10_000 };

interface Task {
  readonly samples: readonly Sample[];
  readonly done: (results: readonly Scored[]) => void;
}

type Slot =
  | { readonly kind: "empty" }
  | { readonly kind: "starting"; readonly worker: ScoringWorker; readonly timer: Timer }
  | { readonly kind: "idle"; readonly worker: ScoringWorker }
  | { readonly kind: "busy"; readonly worker: ScoringWorker; readonly id: number; readonly task: Task; readonly timer: Timer };

/**
 * Scores groups in workers that can be killed.
 * R2: every group gets exactly one answer: its rewards, or a failure for each of its samples.
 * R3: a group past its deadline costs its worker, never another group.
 * R4: user code that cannot be loaded fails every group with the reason, and is not started again.
 */
export class RewardPool implements AsyncDisposable {
  readonly #options: RewardPoolOptions;
  readonly #slots: Slot[];
  readonly #waiting: Task[] = [];
  #broken: string | null = null;
  #closed = false;
  #nextId = 1;

  constructor(options: RewardPoolOptions) {
    invariant(options.workers > 0, "a reward pool has a worker");
    this.#options = options;
    this.#slots = Array.from({ length: options.workers }, () => ({ kind: "empty" }));
  }

  /** Rewards of one group, in order. Never rejects for what user code does: that is a `failed` result. */
  score(samples: readonly Sample[]): Promise<readonly Scored[]> {
    invariant(!this.#closed, "no scoring after close");
    if (samples.length === 0) return Promise.resolve([]);
    if (this.#waiting.length >= this.#options.waitingMax) {
      const busy = { actorId: "rewards", pending: this.#waiting.length, pendingMax: this.#options.waitingMax };
      return Promise.reject(new SlimeError("actor.busy", `${busy.pending} groups already wait to be scored`, busy));
    }
    return new Promise((done) => {
      this.#waiting.push({ samples, done });
      this.#advance();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const [at, slot] of this.#slots.entries()) {
      if (slot.kind === "busy") this.#fail(slot.task, "scoring was shut down");
      this.#empty(at);
    }
    for (const task of this.#waiting.splice(0)) this.#fail(task, "scoring was shut down");
  }

  #advance(): void {
    if (this.#broken !== null) {
      for (const task of this.#waiting.splice(0)) this.#fail(task, this.#broken);
      return;
    }
    for (const [at, slot] of this.#slots.entries()) {
      if (this.#waiting.length === 0) return;
      if (slot.kind === "empty") this.#start(at);
      else if (slot.kind === "idle") this.#give(at, slot.worker);
    }
  }

  #start(at: number): void {
    const worker = startWorker(this.#options.start, {
      onMessage: (message) => this.#hear(at, worker, message),
      onDeath: (reason) => this.#lose(at, worker, reason),
    });
    const { startMsMax } = this.#options;
    const timer = this.#options.clock.after(startMsMax, () => this.#lose(at, worker, `it did not load within ${startMsMax} ms`));
    this.#slots[at] = { kind: "starting", worker, timer };
  }

  #give(at: number, worker: ScoringWorker): void {
    const task = this.#waiting.shift();
    if (task === undefined) return;
    const { groupMsMax } = this.#options;
    const id = this.#nextId++;
    const timer = this.#options.clock.after(groupMsMax, () => this.#lose(at, worker, `it took longer than ${groupMsMax} ms`));
    this.#slots[at] = { kind: "busy", worker, id, task, timer };
    worker.send({ id, samples: task.samples });
  }

  #hear(at: number, worker: ScoringWorker, message: WorkerMessage): void {
    const slot = this.#slots[at];
    if (slot === undefined || slot.kind === "empty" || slot.worker !== worker) return;
    if (message.kind === "broken") {
      this.#broken = message.reason;
      this.#empty(at);
    } else if (message.kind === "ready" && slot.kind === "starting") {
      slot.timer.cancel();
      this.#slots[at] = { kind: "idle", worker };
    } else if (message.kind === "done" && slot.kind === "busy" && slot.id === message.id) {
      slot.timer.cancel();
      this.#slots[at] = { kind: "idle", worker };
      slot.task.done(message.results);
    }
    this.#advance();
  }

  #lose(at: number, worker: ScoringWorker, reason: string): void {
    const slot = this.#slots[at];
    if (slot === undefined || slot.kind === "empty" || slot.worker !== worker) return;
    if (slot.kind === "starting") this.#broken = reason;
    if (slot.kind === "busy") this.#fail(slot.task, reason);
    this.#empty(at);
    if (!this.#closed) this.#advance();
  }

  #empty(at: number): void {
    const slot = this.#slots[at];
    if (slot === undefined || slot.kind === "empty") return;
    if (slot.kind !== "idle") slot.timer.cancel();
    slot.worker.kill();
    this.#slots[at] = { kind: "empty" };
  }

  #fail(task: Task, reason: string): void {
    task.done(task.samples.map(() => ({ kind: "failed", reason })));
  }
}
