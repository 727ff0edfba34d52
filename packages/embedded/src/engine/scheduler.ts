import type { FinishReason, PauseMode } from "@slime/backend";
import type { Clock } from "@slime/core";
import type { CachedDecoder } from "./cached-decoder.js";
import { KvPages, pageRows } from "./kv-pages.js";
import { type EngineLimits, refusal } from "./options.js";
import type { Sampler } from "./sampling.js";
import type { Sequence } from "./sequence.js";
import { pushStepRows, type WantedRow } from "./step-rows.js";

/** What the scheduler counts over its life. */
export interface SchedulerCounts {
  readonly requests: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly aborted: number;
  readonly retracted: number;
  readonly steps: number;
}

/**
 * Continuous batching: which sequences run, which wait, and one step of all that run.
 * Q1: a sequence holds a slot and pages exactly while it runs. Q2: it is admitted only when its worst case fits, so nothing runs out
 * of cache half-way. Q3: admission is in order of arrival; retracted sequences come first. Q4: while paused no step is taken.
 * Q5: weights change only between steps, and only when nothing runs or the engine is paused.
 * Q6: every sequence submitted ends once: finished or failed.
 */
export class Scheduler {
  readonly #decoder: CachedDecoder;
  readonly #sampler: Sampler;
  readonly #limits: EngineLimits;
  readonly #clock: Clock;
  readonly #waiting: Sequence[] = [];
  /** In order of admission. */
  readonly #running: Sequence[] = [];
  readonly #byRid = new Map<string, Sequence>();
  readonly #slots: number[] = [];
  #paused = false;
  /** Weight changes that wait for nothing to run; no one is admitted before they had their turn. */
  readonly #barriers: (() => void)[] = [];
  #counts = { requests: 0, inputTokens: 0, outputTokens: 0, aborted: 0, retracted: 0, steps: 0 };
  /** The version its weights carry; null before the first ones. */
  version: string | null = null;

  constructor(decoder: CachedDecoder, limits: EngineLimits, clock: Clock) {
    this.#decoder = decoder;
    this.#sampler = decoder.sampler();
    this.#limits = limits;
    this.#clock = clock;
    for (let slot = limits.runningMax - 1; slot >= 0; slot--) this.#slots.push(slot);
  }

  get running(): number {
    return this.#running.length;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get counts(): SchedulerCounts {
    return this.#counts;
  }

  get kvTokensUsed(): number {
    return this.#running.reduce((sum, sequence) => sum + sequence.computed, 0);
  }

  /** Nothing runs and nothing waits. */
  get idle(): boolean {
    return this.#running.length === 0 && this.#waiting.length === 0;
  }

  /** @throws `engine.refused`: 400 for a rid in use or a request that can never fit, 503 when the queue is full. All of a batch or none. */
  submit(sequences: readonly Sequence[]): void {
    if (this.version === null) throw refusal(503, "The engine has no weights yet: it serves after the first weight update.");
    const rids = new Set<string>();
    for (const { job, lengthMax } of sequences) {
      if (this.#byRid.has(job.rid) || rids.has(job.rid))
        throw refusal(400, `Duplicate request ID detected: ${job.rid} is still running; wait for it or abort it first.`);
      rids.add(job.rid);
      if (KvPages.pagesFor(lengthMax) > this.#decoder.pages.total) {
        throw refusal(
          400,
          `The request may need ${lengthMax} tokens of cache and the engine has ${this.#decoder.pages.total * pageRows}; lower max_new_tokens or raise kvTokensMax.`,
        );
      }
    }
    if (this.#waiting.length + sequences.length > this.#limits.waitingMax) {
      throw refusal(
        503,
        `The request queue is full (${this.#waiting.length} waiting, at most ${this.#limits.waitingMax}); try again later.`,
      );
    }
    for (const sequence of sequences) {
      this.#byRid.set(sequence.job.rid, sequence);
      this.#waiting.push(sequence);
      this.#counts.requests++;
      this.#counts.inputTokens += sequence.job.inputIds.length;
    }
  }

  /** Ends one sequence with what it has; an unknown rid is nothing. */
  abort(rid: string): void {
    const sequence = this.#byRid.get(rid);
    if (sequence !== undefined) this.#finish(sequence, { type: "abort", message: "Aborted" });
  }

  abortAll(): void {
    for (const sequence of [...this.#running, ...this.#waiting]) this.#finish(sequence, { type: "abort", message: "Aborted" });
  }

  /** Ends every sequence with an error; for a shutdown. */
  failAll(status: number, message: string): void {
    for (const sequence of [...this.#running, ...this.#waiting]) this.#fail(sequence, status, message);
  }

  /** `abort` ends all that run or wait; `retract` sends them back to the queue without their cache; `in_place` freezes them. */
  pause(mode: PauseMode): void {
    if (mode === "abort") this.abortAll();
    if (mode === "retract") {
      for (const sequence of this.#running.splice(0).reverse()) {
        this.#release(sequence);
        sequence.state = { kind: "waiting" };
        sequence.computed = 0;
        sequence.retractions++;
        this.#counts.retracted++;
        this.#waiting.unshift(sequence);
      }
    }
    this.#paused = true;
    this.#passBarriers();
  }

  resume(): void {
    this.#paused = false;
  }

  /**
   * Changes the weights at the first moment that allows it (Q5): at once while paused or when nothing runs; else when what runs has ended,
   * and until then nobody new is admitted. @throws the signal's reason; nothing was changed then.
   */
  changeWeights(change: () => void, version: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const onAbort = () => {
        this.#barriers.splice(this.#barriers.indexOf(pass), 1);
        reject(signal.reason);
      };
      const pass = () => {
        signal.removeEventListener("abort", onAbort);
        change();
        this.version = version;
        resolve();
      };
      if (this.#paused || this.#running.length === 0) return pass();
      signal.addEventListener("abort", onAbort, { once: true });
      this.#barriers.push(pass);
    });
  }

  /** One batch: admits, runs a forward pass, takes a token for each sequence that is due one. False when there was nothing to do. */
  step(): boolean {
    if (this.#paused || this.version === null) return false;
    if (this.#running.length === 0 && this.#barriers.length > 0) {
      this.#passBarriers();
      return true;
    }
    if (this.#barriers.length === 0) this.#admit();
    if (this.#running.length === 0) return false;
    const wanted = pushStepRows(this.#decoder, this.#running);
    this.#decoder.forward();
    this.#counts.steps++;
    for (let from = 0; from < wanted.length; from += this.#decoder.logitsRowsMax)
      this.#take(wanted.slice(from, from + this.#decoder.logitsRowsMax), this.version);
    return true;
  }

  #passBarriers(): void {
    for (const barrier of this.#barriers.splice(0)) barrier();
  }

  #admit(): void {
    while (this.#running.length < this.#limits.runningMax) {
      const sequence = this.#waiting[0];
      if (sequence === undefined) return;
      const pages = this.#decoder.pages.take(KvPages.pagesFor(sequence.lengthMax));
      if (pages === null) return;
      this.#waiting.shift();
      const slot = this.#slots.pop() ?? 0;
      this.#decoder.mapSlot(slot, pages);
      sequence.state = { kind: "running", slot, pages };
      sequence.admittedMs ??= this.#clock.nowMs();
      this.#running.push(sequence);
    }
  }

  #take(wanted: readonly WantedRow[], version: string): void {
    const { logitsStride } = this.#decoder;
    const base = this.#decoder.logits(wanted.map(({ row }) => row));
    wanted.forEach(({ sequence, target }, i) => {
      if (sequence.state.kind !== "running") return;
      const logits = base + i * logitsStride * 4;
      if (target === null) this.#takeToken(sequence, logits, version);
      else this.#takeInput(sequence, target, logits);
    });
  }

  /** Input log-probs are those of temperature 1, as stock SGLang's. */
  #takeInput(sequence: Sequence, target: number, logits: number): void {
    const logProb = this.#sampler.logProb(logits, sequence.token(target), 1);
    if (Number.isFinite(logProb)) sequence.inputLogProbs[target - (sequence.job.logProbStart ?? 0)] = logProb;
    else this.#failNumeric(sequence);
  }

  #takeToken(sequence: Sequence, logits: number, version: string): void {
    const { job } = sequence;
    sequence.weightVersion = version;
    if (job.maxNewTokens === 0) return this.#finish(sequence, { type: "length", length: 0 });
    const token = this.#sampler.pick(logits, job.sampling, sequence.outputIds.length, sequence.banned());
    const logProb = token !== null && job.returnLogProb ? this.#sampler.logProb(logits, token, job.sampling.temperature) : null;
    if (token === null || (logProb !== null && !Number.isFinite(logProb))) return this.#failNumeric(sequence);
    sequence.firstTokenMs ??= this.#clock.nowMs();
    this.#counts.outputTokens++;
    const reason = sequence.accept(token, logProb, version);
    if (reason !== null) this.#finish(sequence, reason);
    else sequence.listener.progressed?.(sequence);
  }

  #failNumeric(sequence: Sequence): void {
    this.#fail(
      sequence,
      500,
      `The logits are not finite: the weights (version ${this.version}) hold NaN or infinity, or every token is banned; push sound weights.`,
    );
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    if (reason.type === "abort") this.#counts.aborted++;
    this.#end(sequence, { kind: "finished", reason });
  }

  #fail(sequence: Sequence, status: number, message: string): void {
    this.#end(sequence, { kind: "failed", status, message });
  }

  #end(sequence: Sequence, state: Sequence["state"]): void {
    if (this.#byRid.get(sequence.job.rid) !== sequence) return;
    this.#byRid.delete(sequence.job.rid);
    const from = sequence.state.kind === "running" ? this.#running : this.#waiting;
    from.splice(from.indexOf(sequence), 1);
    this.#release(sequence);
    sequence.state = state;
    sequence.endedMs = this.#clock.nowMs();
    if (sequence.weightVersion === "") sequence.weightVersion = this.version ?? "";
    sequence.listener.ended(sequence);
  }

  #release(sequence: Sequence): void {
    if (sequence.state.kind !== "running") return;
    this.#decoder.pages.give(sequence.state.pages);
    this.#slots.push(sequence.state.slot);
  }

  /** Frees nothing that is held: there is no cache of prefixes, so an idle engine has nothing left to flush. @throws `engine.refused` 400 while busy, as SGLang. */
  flush(): void {
    if (!this.idle)
      throw refusal(
        400,
        `Flush cache failed. ${this.#running.length} requests run and ${this.#waiting.length} wait; pause with mode "abort" first.`,
      );
  }
}
