import { systemClock, systemRandom } from "@slime/core";
import { type RunningEngine, startEmbeddedEngine } from "@slime/embedded";
import { ctx, defineActors } from "@slime/runtime";

export interface RolloutEngineOptions {
  readonly hfCheckpoint: string;
  /** Initial weights come from this seed; null: from the directory. */
  readonly fromSeed: number | null;
  readonly samplingSeed: number;
}

/** One engine behind SGLang's HTTP routes. It lives in this process; pushes and requests reach it over HTTP. */
export class RolloutEngine {
  readonly #options: RolloutEngineOptions;
  #engine: Promise<RunningEngine> | null = null;

  constructor(options: RolloutEngineOptions) {
    this.#options = options;
  }

  /** Where it listens. Starts it the first time; every life of the actor has a port of its own. */
  async start(): Promise<{ readonly url: string; readonly pid: number }> {
    this.#engine ??= this.#launch();
    return { url: (await this.#engine).url, pid: process.pid };
  }

  /** Ends this life at once: the engine could not be trusted with its weights. Its restart policy gives it the next. */
  crash(reason: string): void {
    process.stderr.write(`engine ends itself: ${reason}\n`);
    process.exit(70);
  }

  async onShutdown(): Promise<void> {
    await (await this.#engine)?.close();
  }

  async #launch(): Promise<RunningEngine> {
    ctx().phase("loading weights");
    const { hfCheckpoint, fromSeed, samplingSeed } = this.#options;
    const engine = await startEmbeddedEngine({
      model: fromSeed === null ? { kind: "directory", path: hfCheckpoint } : { kind: "from-seed", path: hfCheckpoint, seed: fromSeed },
      seed: samplingSeed,
      clock: systemClock,
      random: systemRandom,
    });
    ctx().phase("serving");
    return engine;
  }
}
defineActors(import.meta.url, { RolloutEngine });
