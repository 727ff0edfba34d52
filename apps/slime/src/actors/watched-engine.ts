import type { Engine, PauseMode, WeightReceipt, WeightUpdate } from "@slime/backend";
import type { Clock } from "@slime/core";
import { type HealthWatch, type HttpServerEngineAdapter, type MemoryTag, probe, watchHealth } from "@slime/sglang";
import type { OwnedEngine } from "./engine-process.js";
import type { EngineNews } from "./engine-protocol.js";

export interface WatchedEngineParts {
  readonly adapter: HttpServerEngineAdapter;
  /** Settles with the server's end; null: not ours, so only its answers tell. */
  readonly exited: Promise<{ readonly reason: string }> | null;
  readonly onHealth: (health: EngineNews["health"]) => void;
  readonly clock: Clock;
}

/** A probe is given up by its watch, at the latest after this. */
const probeMsMax = 60_000;
/** An update takes too long after so many times the longest so far, and never before so many milliseconds. */
const updateTimesMax = 10;
const updateMsMin = 30_000;

/**
 * A server's adapter under watch: its health is judged by its process, its tokens and probes, and not judged while it is paused, updated or
 * released, when it answers no probe.
 */
export class WatchedEngine implements OwnedEngine {
  readonly url: string;
  readonly generate: Engine["generate"];
  readonly health: Engine["health"];
  readonly info: Engine["info"];
  readonly load: Engine["load"];
  readonly abort: Engine["abort"];
  readonly flush: Engine["flush"];
  /** Resolves with why the engine must be ended: it hangs, its server is gone, or nobody knows what it did with a call. */
  readonly over: Promise<string>;
  readonly #adapter: HttpServerEngineAdapter;
  readonly #watch: HealthWatch;
  #isOver: (reason: string) => void = () => {};
  readonly #clock: Clock;
  #updateLongestMs: number | null = null;
  #paused: Disposable | null = null;
  #released: Disposable | null = null;

  constructor({ adapter, exited, onHealth, clock }: WatchedEngineParts) {
    this.#adapter = adapter;
    this.#clock = clock;
    this.url = adapter.url;
    this.generate = (request, options) => adapter.generate(request, options);
    this.health = (timeoutMs) => adapter.health(timeoutMs);
    this.info = () => adapter.info();
    this.load = () => adapter.load();
    this.abort = (target) => adapter.abort(target);
    this.flush = () => this.#known(() => adapter.flush());
    this.over = new Promise((resolve) => {
      this.#isOver = resolve;
    });
    this.#watch = watchHealth({
      clock,
      probe: (signal) => probe(adapter.url, "/health_generate", { clock, timeoutMs: probeMsMax, signal }),
      tokens: async () => (await adapter.load()).tokensTotal,
      exited: exited ?? new Promise(() => {}),
      onVerdict: (verdict) => {
        if (verdict.kind !== "dead") return onHealth({ kind: verdict.kind, reason: verdict.kind === "suspect" ? verdict.reason : "" });
        this.#give(verdict.reason);
      },
    });
  }

  async pause(mode: PauseMode): Promise<void> {
    this.#paused ??= this.#watch.hold("a pause");
    await this.#known(() => this.#adapter.pause(mode));
  }

  async resume(): Promise<void> {
    await this.#known(() => this.#adapter.resume());
    this.#paused?.[Symbol.dispose]();
    this.#paused = null;
  }

  /** What updates before it took says how long one may take: a server that hangs in it is not waited for as long as the first may need. */
  async updateWeights(update: WeightUpdate): Promise<WeightReceipt> {
    using _held = this.#watch.hold("an update");
    const from = this.#clock.nowMs();
    const limitMs = this.#updateLongestMs === null ? null : Math.max(updateMsMin, updateTimesMax * this.#updateLongestMs);
    const timer =
      limitMs === null ? null : this.#clock.after(limitMs, () => this.#give(`an update has taken ${Math.round(limitMs / 1_000)} s`));
    try {
      const receipt = await this.#known(() => this.#adapter.updateWeights(update));
      this.#updateLongestMs = Math.max(this.#updateLongestMs ?? 0, this.#clock.nowMs() - from);
      return receipt;
    } finally {
      timer?.cancel();
    }
  }

  async releaseMemory(tags: readonly MemoryTag[]): Promise<void> {
    this.#released ??= this.#watch.hold("released memory");
    await this.#known(() => this.#adapter.release(tags));
  }

  async resumeMemory(tags: readonly MemoryTag[]): Promise<void> {
    await this.#known(() => this.#adapter.resumeMemory(tags));
    if (this.#adapter.state.kind === "live" && this.#adapter.state.released.length > 0) return;
    this.#released?.[Symbol.dispose]();
    this.#released = null;
  }

  async close(): Promise<void> {
    this.#watch[Symbol.dispose]();
    await this.#adapter.close();
  }

  #give(reason: string): void {
    this.#adapter.end(reason);
    this.#isOver(reason);
  }

  /** A call that was never answered ends the engine: its owner must not go on with it. */
  async #known<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } finally {
      const { state } = this.#adapter;
      if (state.kind === "ended") this.#isOver(`nobody knows what it did: ${state.reason}`);
    }
  }
}
