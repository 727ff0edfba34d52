import type { Fence, Op, Router as RouterPort } from "@slime/backend";
import {
  backoffDelayMs,
  type Clock,
  causeChain,
  defaultBackoff,
  invariant,
  type Logger,
  type Random,
  SlimeError,
  sleep,
} from "@slime/core";
import { HttpEngine, httpRouter } from "@slime/router";
import type { ActorHandle, ActorStatus } from "@slime/runtime";
import type { EngineFleet, EngineHandle, FleetEvent } from "@slime/training";
import type { RolloutEngine } from "../actors/rollout-engine.js";
import type { RolloutWorker } from "../actors/rollout-worker.js";
import type { Router } from "../actors/router.js";

/** Time of one control call to a router or engine that lives. */
const controlMsMax = 30_000;
/** Time a started engine may take until it answers health. */
const engineStartMsMax = 120_000;

export interface FleetParts {
  readonly engines: readonly ActorHandle<RolloutEngine>[];
  readonly router: ActorHandle<Router>;
  readonly workers: readonly ActorHandle<RolloutWorker>[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** One engine's life as the run sees it. `up` owns the client. */
type Slot = { readonly kind: "down" } | { readonly kind: "up"; readonly incarnation: number; readonly handle: EngineHandle };

/**
 * Engines and router as the loop's port.
 * F1: an engine that (re)started is known to the router as fenced before `engine.started` is said; only the fence's `open` lets requests in.
 * F2: `engine.died` is said once per life, before the next `engine.started` of that engine.
 * F3: after a router's restart every live engine is added again, fenced, before `router.started` is said.
 */
export class Fleet implements EngineFleet {
  readonly #parts: FleetParts;
  readonly #slots: Slot[];
  readonly #listeners = new Set<(event: FleetEvent) => void>();
  /** Moves happen one after another, so that a router never learns of engines in another order than they came. */
  #last: Promise<void> = Promise.resolve();
  #routerLife = 0;
  #router: RouterPort | null = null;
  #started = false;
  #closed = false;

  constructor(parts: FleetParts) {
    this.#parts = parts;
    this.#slots = parts.engines.map(() => ({ kind: "down" }));
  }

  readonly fence: Fence = {
    close: async (url) => (await this.#routerPort()).fence(url),
    open: async (url, version) => (await this.#routerPort()).open(url, version),
  };

  list(): readonly EngineHandle[] {
    return this.#slots.flatMap((slot) => (slot.kind === "up" ? [slot.handle] : []));
  }

  subscribe(listener: (event: FleetEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** From here on deaths are the run's own doing: nothing is said, nothing is raised again. */
  close(): void {
    this.#closed = true;
  }

  /** Says what happened elsewhere, a trainer's death for one. */
  emit(event: FleetEvent): void {
    if (this.#closed) return;
    for (const listener of [...this.#listeners]) listener(event);
  }

  async start(op: Op): Promise<void> {
    if (this.#started) return;
    const { engines, router, workers } = this.#parts;
    const wait = { timeoutMs: op.timeoutMs, ...(op.signal && { signal: op.signal }) };
    await router.ready(wait);
    this.#routerLife = router.state().incarnation;
    await this.#raiseRouter();
    await Promise.all(
      engines.map(async (engine, at) => {
        await engine.ready(wait);
        await this.#raise(at, engine.state().incarnation);
      }),
    );
    this.#started = true;
    for (const [at, engine] of engines.entries()) engine.onStateChange((status) => this.#engineChanged(at, status));
    router.onStateChange((status) => this.#routerChanged(status));
    for (const [at, worker] of workers.entries()) this.#watchWorker(at, worker);
  }

  async restart(engineId: string, reason: string): Promise<void> {
    const at = this.#slots.findIndex((slot) => slot.kind === "up" && slot.handle.id === engineId);
    const engine = this.#parts.engines[at];
    if (engine === undefined) return;
    this.#parts.log.warn("engine.restarted", { engineId, reason });
    await engine.crash
      .options({ timeoutMs: controlMsMax })(reason)
      .catch(() => undefined);
  }

  #engineChanged(at: number, status: ActorStatus): void {
    const slot = this.#slots[at];
    if (slot?.kind === "up" && (status.state !== "ALIVE" || status.incarnation !== slot.incarnation)) {
      this.#slots[at] = { kind: "down" };
      this.emit({
        kind: "engine.died",
        engineId: slot.handle.id,
        url: slot.handle.url,
        reason: status.death?.message ?? `it is ${status.state}`,
      });
      this.#inTurn("remove engine", async () => {
        await (await this.#routerPort()).remove(slot.handle.url);
        await slot.handle.engine.close();
      });
    }
    if (status.state !== "ALIVE" || (slot?.kind === "up" && slot.incarnation === status.incarnation)) return;
    this.#inTurn("raise engine", async () => {
      const { id, url } = await this.#raise(at, status.incarnation);
      this.emit({ kind: "engine.started", engineId: id, url });
    });
  }

  #routerChanged(status: ActorStatus): void {
    if (status.incarnation === this.#routerLife && status.state === "ALIVE") return;
    if (status.state !== "ALIVE") {
      this.emit({ kind: "router.died", reason: status.death?.message ?? `it is ${status.state}` });
      return;
    }
    this.#routerLife = status.incarnation;
    this.#inTurn("raise router", async () => {
      const url = await this.#raiseRouter();
      for (const engine of this.list()) await this.#introduce(engine.url);
      const { workers } = this.#parts;
      await Promise.all(
        workers.map((worker) =>
          worker.setRouter
            .options({ timeoutMs: controlMsMax })(url)
            .catch(() => undefined),
        ),
      );
      this.emit({ kind: "router.started" });
    });
  }

  /** A worker that came back knows the router it was made with; it is told where the router is now. */
  #watchWorker(at: number, worker: ActorHandle<RolloutWorker>): void {
    let life = worker.state().incarnation;
    worker.onStateChange((status) => {
      if (status.state !== "ALIVE") {
        if (status.death !== null) this.emit({ kind: "worker.died", worker: `rollout-worker-${at}`, reason: status.death.message });
      } else if (status.incarnation !== life) {
        life = status.incarnation;
        this.#inTurn("tell worker", async () => {
          const { url } = await this.#routerPort();
          await worker.setRouter.options({ timeoutMs: controlMsMax })(url);
        });
      }
    });
  }

  /** Brings one engine's life up to where the router knows it, fenced (F1). */
  async #raise(at: number, incarnation: number): Promise<EngineHandle> {
    const actor = this.#parts.engines[at];
    invariant(actor !== undefined, `there is an engine ${at}`);
    const { url } = await actor.start.options({ timeoutMs: engineStartMsMax })();
    const engine = new HttpEngine(url);
    await engine.health(controlMsMax);
    await this.#introduce(url);
    const handle = { id: engineId(at), url, engine };
    this.#slots[at] = { kind: "up", incarnation, handle };
    return handle;
  }

  async #introduce(url: string): Promise<void> {
    const router = await this.#routerPort();
    await router.add(url, { fenced: true });
  }

  /** The router of this life, over HTTP. */
  async #raiseRouter(): Promise<string> {
    const { url } = await this.#parts.router.start.options({ timeoutMs: controlMsMax })();
    this.#router = httpRouter(url);
    return url;
  }

  async #routerPort(): Promise<RouterPort> {
    if (this.#router === null) await this.#raiseRouter();
    invariant(this.#router !== null, "raising a router gives one");
    return this.#router;
  }

  /** Runs moves one after another and tries a failed one again; the next life of its actor gives a fresh chance beyond that. */
  #inTurn(what: string, move: () => Promise<void>): void {
    const { clock, random, log } = this.#parts;
    this.#last = this.#last.then(async () => {
      for (let attempt = 1; !this.#closed; attempt++) {
        try {
          return await move();
        } catch (error) {
          const delayMs = backoffDelayMs(defaultBackoff, attempt + 1, random);
          log.warn("fleet.move_failed", { what, attempt, error: causeChain(error).join(": ") });
          if (delayMs === null || SlimeError.is(error, "actor.died")) return;
          await sleep(clock, delayMs);
        }
      }
    });
  }
}

const engineId = (at: number) => `engine-${at}`;
