import type { PauseMode } from "@slime/backend";
import { type Clock, seededRandom, type Timer } from "@slime/core";
import { decodeDouble, doubleEos, logProbs } from "./double-model.js";

/** One request under way. */
export interface DoubleJob {
  readonly rid: string;
  readonly inputIds: readonly number[];
  readonly maxNewTokens: number;
  readonly minNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly stop: readonly string[];
  readonly stopTokenIds: readonly number[];
  readonly ignoreEos: boolean;
  readonly noStopTrim: boolean;
  /** −1: none. */
  readonly logProbsFrom: number;
  readonly outputIds: number[];
  readonly outputLogProbs: number[];
  /** One per input token from `logProbsFrom` on, from when it first ran. */
  readonly inputLogProbs: (number | null)[];
  /** Where the weights changed: tokens so far, and the version until then. */
  readonly events: { readonly version: string; readonly tokens: number }[];
  retractions: number;
  finish: Readonly<Record<string, unknown>> | null;
  text: string;
  readonly progressed: () => void;
}

export interface DoubleSchedulerOptions {
  readonly clock: Clock;
  /** Between two steps; every running request gets a token a step. */
  readonly stepMs: number;
  readonly seed: () => number;
  /** True: the memory it needs was given back. */
  readonly released: () => boolean;
  readonly die: (reason: string) => void;
}

/** What SGLang's scheduler and its front do with requests: who runs, who waits, who is held back, what a pause does to each. */
export class DoubleScheduler {
  readonly running = new Set<DoubleJob>();
  /** Retracted: back in the queue with their tokens, to be read anew. */
  readonly queued: DoubleJob[] = [];
  /** Held before the scheduler by a pause or by an update that waits. */
  readonly blocked: DoubleJob[] = [];
  pause: PauseMode | null = null;
  frozen = false;
  /** An abort that waits for requests which a pause in place holds: it never ends, and nothing else of its kind does. */
  deadlocked = false;
  tokens = 0;
  readonly #options: DoubleSchedulerOptions;
  readonly #random = seededRandom(7);
  #timer: Timer | null = null;
  #updates = 0;
  #idleWaiters: (() => void)[] = [];
  readonly #wakers: (() => void)[] = [];

  constructor(options: DoubleSchedulerOptions) {
    this.#options = options;
  }

  get idle(): boolean {
    return this.running.size === 0 && this.queued.length === 0;
  }

  has(rid: string): boolean {
    return [...this.running, ...this.queued, ...this.blocked].some((job) => job.rid === rid);
  }

  submit(job: DoubleJob): void {
    if (this.pause !== null || this.#updates > 0) this.blocked.push(job);
    else this.#start(job);
    this.#wake();
  }

  abort(rid: string | null): void {
    for (const job of [...this.running, ...this.queued, ...this.blocked])
      if (rid === null || job.rid === rid) this.#finish(job, { type: "abort", message: "Aborted", status_code: null, err_type: null });
    this.#settled();
  }

  /** Resolves once nothing runs or waits. Held requests never end. */
  whenIdle(): Promise<void> {
    if (this.idle) return Promise.resolve();
    return new Promise((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Resolves never when it deadlocks. */
  async pauseBy(mode: PauseMode): Promise<void> {
    if (mode === "abort") {
      if (this.deadlocked || (this.pause === "in_place" && !this.idle)) {
        this.deadlocked = true;
        return new Promise(() => {});
      }
      this.pause = "abort";
      this.abort(null);
      return;
    }
    if (this.deadlocked) return new Promise(() => {});
    this.pause = mode;
    if (mode === "in_place") return;
    for (const job of this.running) {
      job.retractions++;
      this.queued.push(job);
    }
    this.running.clear();
  }

  resume(): Promise<void> {
    if (this.deadlocked) return new Promise(() => {});
    this.pause = null;
    this.#letIn();
    return Promise.resolve();
  }

  /** Runs a change of the weights as the server's lock does: at once while paused, else once what runs has ended, with newcomers held back. */
  async exclusive<T>(change: () => T | Promise<T>): Promise<T> {
    await this.whenAwake();
    if (this.pause !== null) return change();
    this.#updates++;
    try {
      await this.whenIdle();
      return await change();
    } finally {
      this.#updates--;
      this.#letIn();
    }
  }

  /** Every request that has tokens keeps which weights they are of. */
  versionChanged(from: string): void {
    for (const job of [...this.running, ...this.queued])
      if (job.outputIds.length > 0) job.events.push({ version: from, tokens: job.outputIds.length });
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.running.clear();
    this.queued.length = 0;
    this.blocked.length = 0;
  }

  /** Resolves once the scheduler is not stopped: what asks it something waits. */
  whenAwake(): Promise<void> {
    if (!this.frozen) return Promise.resolve();
    return new Promise((resolve) => this.#wakers.push(resolve));
  }

  wake(): void {
    for (const resolve of this.#wakers.splice(0)) resolve();
    this.#wake();
  }

  #letIn(): void {
    if (this.pause !== null || this.#updates > 0) return;
    for (const job of this.blocked.splice(0)) this.#start(job);
    for (const job of this.queued.splice(0)) this.running.add(job);
    this.#wake();
  }

  #start(job: DoubleJob): void {
    if (job.finish === null) this.running.add(job);
  }

  #wake(): void {
    if (this.#timer !== null || this.pause !== null || this.frozen || this.running.size === 0) return;
    this.#timer = this.#options.clock.after(this.#options.stepMs, () => {
      this.#timer = null;
      if (this.pause === null && !this.frozen) this.#step();
      this.#wake();
    });
  }

  #step(): void {
    if (this.#options.released()) return this.#options.die("Pointer argument (at 0) cannot be accessed from Triton: memory is released");
    for (const job of [...this.running]) {
      const beyond = job.inputIds.find((id) => id < 0 || id >= 64);
      if (beyond !== undefined) return this.#options.die(`device-side assert: token id ${beyond} is outside the vocabulary`);
      this.#token(job);
    }
    this.#settled();
  }

  #token(job: DoubleJob): void {
    const seed = this.#options.seed();
    if (job.logProbsFrom >= 0 && job.inputLogProbs.length === 0) score(job, seed);
    if (job.maxNewTokens === 0) return this.#finish(job, { type: "length", length: 0 });
    const values = logProbs(seed, [...job.inputIds, ...job.outputIds], job.temperature);
    const id = this.#pick(job, values);
    job.outputIds.push(id);
    job.outputLogProbs.push(values[id] ?? 0);
    this.tokens++;
    job.text = decodeDouble(job.outputIds);
    const ends = endOf(job, id);
    if (ends !== null) this.#finish(job, ends);
    else job.progressed();
  }

  #pick(job: DoubleJob, values: Float64Array): number {
    const early = job.outputIds.length < job.minNewTokens;
    const ends = (id: number) => job.stopTokenIds.includes(id) || (!job.ignoreEos && id === doubleEos);
    const order = [...values.keys()].filter((id) => !(early && ends(id))).sort((left, right) => (values[right] ?? 0) - (values[left] ?? 0));
    const bounded = job.topK > 0 ? order.slice(0, job.topK) : order;
    if (job.temperature === 0) return bounded[0] ?? 0;
    let mass = 0;
    const nucleus = bounded.filter((id) => {
      const before = mass;
      mass += Math.exp(values[id] ?? 0);
      return before < job.topP;
    });
    let at = this.#random.unit() * nucleus.reduce((sum, id) => sum + Math.exp(values[id] ?? 0), 0);
    return nucleus.find((id) => (at -= Math.exp(values[id] ?? 0)) <= 0) ?? nucleus.at(-1) ?? 0;
  }

  #finish(job: DoubleJob, finish: Readonly<Record<string, unknown>>): void {
    if (job.finish !== null) return;
    job.finish = finish;
    this.running.delete(job);
    for (const list of [this.queued, this.blocked]) if (list.includes(job)) list.splice(list.indexOf(job), 1);
    job.progressed();
  }

  #settled(): void {
    if (this.idle) for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }
}

/** Spans of a job's tokens under the versions they were made by. */
export function jobSpans(
  { events, outputIds }: DoubleJob,
  version: string,
): readonly { readonly version: string; readonly start: number; readonly end: number }[] {
  const spans: { readonly version: string; readonly start: number; readonly end: number }[] = [];
  for (const change of [...events, { version, tokens: outputIds.length }]) {
    const start = spans.at(-1)?.end ?? 0;
    if (change.tokens > start || spans.length === 0) spans.push({ version: change.version, start, end: change.tokens });
  }
  return spans;
}

function score(job: DoubleJob, seed: number): void {
  for (let at = job.logProbsFrom; at < job.inputIds.length; at++) {
    const values = at === job.logProbsFrom ? null : logProbs(seed, job.inputIds.slice(0, at), 1);
    job.inputLogProbs.push(values === null ? null : (values[job.inputIds[at] ?? 0] ?? 0));
  }
}

/** The reason to end after this token, with the text cut where SGLang cuts it. */
function endOf(job: DoubleJob, id: number): Readonly<Record<string, unknown>> | null {
  const early = job.outputIds.length <= job.minNewTokens && job.minNewTokens > 0;
  if (!early && !job.ignoreEos && (job.stopTokenIds.includes(id) || id === doubleEos)) {
    job.text = decodeDouble(job.outputIds.slice(0, -1));
    return { type: "stop", matched: id };
  }
  const stop = early ? undefined : job.stop.find((text) => job.text.includes(text));
  if (stop !== undefined) {
    if (!job.noStopTrim) job.text = job.text.slice(0, job.text.indexOf(stop));
    return { type: "stop", matched: stop };
  }
  return job.outputIds.length >= job.maxNewTokens ? { type: "length", length: job.outputIds.length } : null;
}
