import type { PauseMode } from "@slime/backend";
import { deadline, invariant, SlimeError, unreachable } from "@slime/core";
import type { ModelConfig } from "../model-config.js";
import { CachedDecoder } from "./cached-decoder.js";
import { pageRows } from "./kv-pages.js";
import { checkLimits, type EngineContext, type EngineLimits, limitsFor, refusal } from "./options.js";
import { Scheduler } from "./scheduler.js";
import { type GenerateJob, Sequence, type SequenceListener } from "./sequence.js";
import type { EngineTokenizer } from "./tokenizer.js";
import { type LoadedWeights, readDirectoryWeights, readSharedWeights } from "./weight-source.js";

export type WeightSource =
  | { readonly kind: "values"; readonly values: Float32Array }
  | { readonly kind: "shared-memory"; readonly path: string; readonly bytes: number; readonly checksum: string }
  | { readonly kind: "directory"; readonly path: string };

type EngineState = { readonly kind: "open"; readonly ended: Promise<void> } | { readonly kind: "closed"; readonly reason: string };

/**
 * The engine without its HTTP front: model, scheduler and the loop that steps it, one step per turn of the event loop.
 * N1: the loop sleeps only when a step found nothing to do, and whatever may give it work wakes it.
 * N2: a weight update replaces all parameters or none, and the version changes in the same turn.
 * N3: an error inside a step ends the engine: every request is answered with it and no other is taken.
 */
export class EmbeddedEngine {
  readonly config: ModelConfig;
  readonly tokenizer: EngineTokenizer | null;
  readonly limits: EngineLimits;
  readonly startedWallMs: number;
  modelPath: string;
  readonly #context: EngineContext;
  readonly #decoder: CachedDecoder;
  readonly #scheduler: Scheduler;
  #state: EngineState;
  #wake: () => void = () => {};
  #updating = false;
  #idleWaiters: (() => void)[] = [];

  constructor(config: ModelConfig, tokenizer: EngineTokenizer | null, modelPath: string, limits: EngineLimits, context: EngineContext) {
    checkLimits(limits);
    this.config = config;
    this.tokenizer = tokenizer;
    this.modelPath = modelPath;
    this.limits = limitsFor(config, limits);
    this.#context = context;
    this.startedWallMs = context.clock.wallMs();
    this.#decoder = new CachedDecoder(config, {
      slots: this.limits.runningMax,
      kvPages: Math.max(1, Math.floor(this.limits.kvTokensMax / pageRows)),
      rowsMax: this.limits.stepRowsMax,
      logitsBytesMax: this.limits.logitsBytesMax,
    });
    this.#scheduler = new Scheduler(this.#decoder, this.limits, context.clock);
    this.#state = { kind: "open", ended: this.#run() };
  }

  /** Counters, queue lengths and versions; read-only. */
  get scheduler(): Omit<Scheduler, "step" | "submit" | "changeWeights"> {
    return this.#scheduler;
  }

  get weightVersion(): string {
    return this.#scheduler.version ?? "none";
  }

  get kvTokensMax(): number {
    return this.#decoder.pages.total * pageRows;
  }

  get kvTokensFree(): number {
    return this.#decoder.pages.free * pageRows;
  }

  /** Null while it serves; else why not. */
  get stopped(): string | null {
    return this.#state.kind === "closed" ? this.#state.reason : null;
  }

  /** Queues the jobs, all or none. @throws `engine.refused`. */
  submit(jobs: readonly GenerateJob[], listener: SequenceListener): readonly Sequence[] {
    if (this.#state.kind === "closed") throw refusal(503, `The engine has stopped: ${this.#state.reason}.`);
    const at = { nowMs: this.#context.clock.nowMs(), wallMs: this.#context.clock.wallMs() };
    const sequences = jobs.map((job) => new Sequence(job, listener, at, this.tokenizer));
    this.#scheduler.submit(sequences);
    this.#wake();
    return sequences;
  }

  abort(target: { readonly rid: string } | { readonly all: true }): void {
    if ("all" in target) this.#scheduler.abortAll();
    else this.#scheduler.abort(target.rid);
    this.#noticeIdle();
  }

  pause(mode: PauseMode): void {
    this.#scheduler.pause(mode);
    this.#noticeIdle();
    this.#context.log.info("engine.paused", { mode, running: this.#scheduler.running, waiting: this.#scheduler.waiting });
  }

  resume(): void {
    this.#scheduler.resume();
    this.#wake();
    this.#context.log.info("engine.continued", { running: this.#scheduler.running, waiting: this.#scheduler.waiting });
  }

  /** @param waitMs how long to wait for idleness first. @throws `engine.refused` 400 when still busy. */
  async flush(waitMs: number): Promise<void> {
    if (waitMs > 0 && !this.#scheduler.idle) {
      await new Promise<void>((resolve) => {
        const timer = this.#context.clock.after(waitMs, resolve);
        this.#idleWaiters.push(() => {
          timer.cancel();
          resolve();
        });
      });
    }
    this.#scheduler.flush();
  }

  /**
   * Loads weights whole and swaps them in between two steps (N2). Not paused, it waits for running requests to end and holds back new ones.
   * @param version null keeps the present one. @throws `weights.mismatch`, `checkpoint.invalid`; `engine.refused` 409 while another update runs.
   */
  async updateWeights(source: WeightSource, version: string | null): Promise<{ readonly checksum: string; readonly version: string }> {
    if (this.#updating) throw refusal(409, "Another weight update is under way; send one at a time.");
    this.#updating = true;
    try {
      const begun = this.#context.clock.nowMs();
      const loaded = await this.#load(source, version ?? this.weightVersion);
      using limit = deadline(this.#context.clock, this.limits.updateWaitMs, "waiting for running requests to end before a weight update");
      const next = version ?? this.#scheduler.version ?? "default";
      await this.#scheduler.changeWeights(() => this.#decoder.weights.set(loaded.values), next, limit.signal);
      this.#wake();
      if (source.kind === "directory") this.modelPath = source.path;
      this.#context.log.info("engine.weights_updated", {
        version: next,
        checksum: loaded.checksum,
        ms: Math.round(this.#context.clock.nowMs() - begun),
      });
      return { checksum: loaded.checksum, version: next };
    } finally {
      this.#updating = false;
    }
  }

  /** Renames the present weights. @throws `engine.refused` 400 before there are any. */
  renameVersion(version: string): void {
    if (this.#scheduler.version === null) throw refusal(400, "The engine has no weights yet; push some instead of renaming them.");
    this.#scheduler.version = version;
  }

  /** Checksum of the parameters in use, the same function as a push's. */
  checksum(): string {
    return this.#decoder.checksum();
  }

  /** Ends every request with an error and stops the loop. */
  async close(reason = "it was closed"): Promise<void> {
    if (this.#state.kind === "closed") return;
    const { ended } = this.#state;
    this.#stop(reason);
    await ended;
  }

  #stop(reason: string): void {
    this.#state = { kind: "closed", reason };
    this.#scheduler.failAll(503, `The engine has stopped: ${reason}.`);
    this.#noticeIdle();
    this.#wake();
  }

  /** The first weights are read in place, since nobody is served before; later ones beside those in use, which a failure leaves as they are (N2). */
  async #load(source: WeightSource, version: string): Promise<LoadedWeights> {
    const checksumOf = (values: Float32Array<ArrayBuffer>) => this.#decoder.checksum(values);
    const { layout } = this.#decoder.weights;
    const values = this.#scheduler.version === null ? this.#decoder.weights.view() : new Float32Array(layout.count);
    switch (source.kind) {
      case "values":
        invariant(source.values.length === layout.count, `L1: ${source.values.length} values for ${layout.count} parameters`);
        values.set(source.values);
        return { values, checksum: checksumOf(values) };
      case "shared-memory":
        return await readSharedWeights(this.config, source, version, checksumOf, values);
      case "directory":
        return await readDirectoryWeights(this.config, source.path, checksumOf, values);
      default:
        return unreachable(source);
    }
  }

  async #run(): Promise<void> {
    // The constructor's turn ends before the first step.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (this.#state.kind === "open") {
      try {
        const worked = this.#scheduler.step();
        this.#noticeIdle();
        await new Promise<void>((resolve) => {
          if (worked) setImmediate(resolve);
          else this.#wake = resolve;
        });
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        this.#context.log.error("engine.failed", { reason, stack: error instanceof Error ? error.stack : undefined });
        this.#stop(SlimeError.isAny(error) ? reason : `a bug in a step: ${reason}`);
      }
    }
  }

  #noticeIdle(): void {
    if (this.#idleWaiters.length > 0 && this.#scheduler.idle) for (const waiter of this.#idleWaiters.splice(0)) waiter();
  }
}
