import type { EngineInfo, EngineLoad, GenerateRequest, GenerateResult, PauseMode, WeightReceipt, WeightUpdate } from "@slime/backend";
import { SlimeError, systemClock } from "@slime/core";
import { isVirtualGpu } from "@slime/platform";
import { ctx, defineActors, lineLogger } from "@slime/runtime";
import type { MemoryTag } from "@slime/sglang";
import type { EngineProcess, EngineStarted, OwnedEngine } from "./engine-process.js";
import type { EngineNews, EngineStart } from "./engine-protocol.js";
import { NewsBoard } from "./news-board.js";
import { leasePortsInARow } from "./ports-in-a-row.js";
import { type EngineSpec, startEngineProcess } from "./start-engine-process.js";

/** What ending the engine's processes may take before this one ends without having seen them gone; its daemon ends what carries its mark. */
const endMsMax = 1_000;
/** Exit code of a life that ended itself so that its restart policy gives it the next: what it owned is unavailable. */
const nextLife = 69;
/** SGLang counts on from the meeting point's port: 30 and one per data-parallel rank. */
const meetingPortsMax = 64;
const log = lineLogger(systemClock, (line) => process.stderr.write(line));

/**
 * The owner of one engine process, of whichever backend: it starts it, watches it, and is the only one that controls it. Requests of rollouts
 * do not come here, they go to the engine's own HTTP port.
 * R1: every control call names the life it means (the actor's incarnation) and is refused in any other: what was decided about a dead
 * engine never happens to its successor. R2: an engine that is over takes its actor with it; the restart policy gives the next life.
 */
export class RolloutEngine {
  static readonly methodGroups = {
    watch: "watch",
    generate: "control",
    info: "control",
    load: "control",
    pause: "control",
    resume: "control",
    flush: "control",
    updateWeights: "control",
    releaseMemory: "control",
    resumeMemory: "control",
    crash: "control",
  };
  readonly #spec: EngineSpec;
  readonly #news = new NewsBoard();
  #process: Promise<EngineProcess> | null = null;

  constructor(spec: EngineSpec) {
    this.#spec = spec;
  }

  /** Where the processes of an engine that spans machines find each other: a port of this machine that nobody else is given. */
  async meetingPoint(address: string): Promise<string> {
    return `${address}:${await leasePortsInARow(ctx().leasePorts, meetingPortsMax)}`;
  }

  /** Starts the engine; asked again in the same life it answers alike, or tries again where it failed. */
  async start(plan: EngineStart): Promise<EngineStarted> {
    this.#process ??= this.#launch(plan);
    return (await this.#process).started;
  }

  /** Resolves with what is newer than `seen`; waits as long as there is nothing. */
  watch(seen: number): Promise<EngineNews> {
    return this.#news.after(seen);
  }

  /** The canary's way; rollouts have the engine's own port. */
  async generate(life: number, request: GenerateRequest, timeoutMs: number): Promise<GenerateResult> {
    const signal = ctx().call?.signal;
    return (await this.#engine(life)).generate(request, { timeoutMs, ...(signal && { signal }) });
  }

  async health(life: number, timeoutMs: number): Promise<void> {
    await (await this.#engine(life)).health(timeoutMs);
  }

  async info(life: number): Promise<EngineInfo> {
    return (await this.#engine(life)).info();
  }

  async load(life: number): Promise<EngineLoad> {
    return (await this.#engine(life)).load();
  }

  async abort(life: number, target: { readonly rid: string } | { readonly all: true }): Promise<void> {
    await (await this.#engine(life)).abort(target);
  }

  async pause(life: number, mode: PauseMode): Promise<void> {
    await (await this.#engine(life)).pause(mode);
  }

  async resume(life: number): Promise<void> {
    await (await this.#engine(life)).resume();
  }

  async flush(life: number): Promise<void> {
    await (await this.#engine(life)).flush();
  }

  async updateWeights(life: number, update: WeightUpdate): Promise<WeightReceipt> {
    return (await this.#engine(life)).updateWeights(update);
  }

  async releaseMemory(life: number, tags: readonly MemoryTag[]): Promise<void> {
    await (await this.#engine(life)).releaseMemory(tags);
  }

  async resumeMemory(life: number, tags: readonly MemoryTag[]): Promise<void> {
    await (await this.#engine(life)).resumeMemory(tags);
  }

  /** Ends this life at once: the engine could not be trusted with its weights, or another of its processes died. */
  crash(life: number, reason: string): void {
    if (life === ctx().incarnation) this.#end(reason);
  }

  async onShutdown(): Promise<void> {
    const engine = await this.#process?.catch(() => null);
    await engine?.close();
  }

  async #launch(plan: EngineStart): Promise<EngineProcess> {
    const { leasePorts, signal } = ctx();
    const phase = (text: string) => {
      ctx().phase(text);
      this.#news.say({ phase: text });
    };
    const health = (now: EngineNews["health"]) => this.#news.say({ health: now });
    const gpuUuids = plan.gpuUuids.filter((uuid) => !isVirtualGpu(uuid));
    try {
      const engine = await startEngineProcess(this.#spec, { ...plan, gpuUuids }, { phase, health, leasePorts, signal, log });
      void engine.over.then((reason) => this.#end(reason));
      phase("serving");
      return engine;
    } catch (error) {
      phase("failed to start");
      this.#process = null;
      throw error;
    }
  }

  /** R1. */
  async #engine(life: number): Promise<OwnedEngine> {
    const { incarnation, actorId } = ctx();
    const engine = life === incarnation ? (await this.#process)?.engine : undefined;
    if (engine !== undefined && engine !== null) return engine;
    const reason = life === incarnation ? "it was not started" : `life ${life} is over, this is life ${incarnation}`;
    throw new SlimeError("engine.unavailable", `engine actor ${actorId}: ${reason}`, { engine: actorId, reason });
  }

  /** R2. The processes below go first: what an engine left behind would hold its GPUs. */
  #end(reason: string): void {
    process.stderr.write(`engine ends itself: ${reason}\n`);
    const exit = () => process.exit(nextLife);
    systemClock.after(endMsMax, exit);
    this.onShutdown().then(exit, exit);
  }
}
defineActors(import.meta.url, { RolloutEngine });
