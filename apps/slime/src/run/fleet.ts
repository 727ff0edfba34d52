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
import type { ActorHandle, ActorStatus } from "@slime/runtime";
import type { EngineFleet, EngineHandle, FleetEvent } from "@slime/training";
import type { EngineNews } from "../actors/engine-protocol.js";
import type { RolloutWorker } from "../actors/rollout-worker.js";
import type { Router, RouterStarted } from "../actors/router.js";
import { type EngineLife, type EngineSeat, EngineSlot } from "./engine-slot.js";
import { Gates } from "./gates.js";

/** Time of one control call to a router or worker that lives. */
const controlMsMax = 30_000;
/** sglang_router is a Python that imports for a second, on a busy machine for many. */
const routerStartMsMax = 90_000;

export interface FleetParts {
  readonly engines: readonly {
    readonly id: string;
    readonly role: "regular" | "prefill" | "decode";
    readonly seats: readonly EngineSeat[];
  }[];
  readonly router: ActorHandle<Router>;
  /** The client of a router that has started. */
  readonly routerAt: (started: RouterStarted) => RouterPort;
  readonly workers: readonly ActorHandle<RolloutWorker>[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/**
 * Engines and router as the loop's port.
 * F1: an engine that (re)started is known to the router as fenced before `engine.started` is said; only the fence's `open` lets requests in.
 * F2: `engine.died` is said once per life, before the next `engine.started` of that engine.
 * F3: after a router's restart every live engine is added again, fenced, before `router.started` is said.
 * F4: an engine that may hang gets nothing new until it is well again; what the loop wants of its fence holds from then on.
 */
export class Fleet implements EngineFleet {
  readonly #parts: FleetParts;
  readonly #slots: readonly EngineSlot[];
  /** Engines that the router knows; a slot is up a little earlier. */
  readonly #introduced = new Set<EngineHandle>();
  readonly #listeners = new Set<(event: FleetEvent) => void>();
  readonly #gates: Gates;
  /** Moves happen one after another, so that a router never learns of engines in another order than they came. */
  #last: Promise<void> = Promise.resolve();
  #routerLife = 0;
  /** The death of each actor that was told last: while it restarts its state is told more than once, with the same death. */
  readonly #told = new Map<string, string>();
  #router: RouterPort | null = null;
  #started = false;
  #closed = false;
  readonly fence: Fence;

  constructor(parts: FleetParts) {
    this.#parts = parts;
    this.#gates = new Gates({
      router: () => this.#routerPort(),
      onFloor: (version) => this.#tellFloor(version),
    });
    this.fence = this.#gates;
    this.#slots = parts.engines.map(
      (engine) =>
        new EngineSlot(
          { ...engine, clock: parts.clock, random: parts.random, log: parts.log },
          {
            up: (life) => this.#engineUp(life),
            down: (life, reason) => this.#engineDown(life, reason),
            news: (news) => this.#engineNews(engine.id, news),
          },
        ),
    );
  }

  list(): readonly EngineHandle[] {
    return [...this.#introduced];
  }

  subscribe(listener: (event: FleetEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** From here on deaths are the run's own doing: nothing is said, nothing is raised again. */
  close(): void {
    this.#closed = true;
    for (const slot of this.#slots) slot.close();
  }

  /** Says what happened elsewhere, a trainer's death for one. */
  emit(event: FleetEvent): void {
    if (this.#closed) return;
    for (const listener of [...this.#listeners]) listener(event);
  }

  async start(op: Op): Promise<void> {
    if (this.#started) return;
    const { router, workers } = this.#parts;
    const wait = { timeoutMs: op.timeoutMs, ...(op.signal && { signal: op.signal }) };
    await router.ready(wait);
    this.#routerLife = router.state().incarnation;
    await this.#raiseRouter();
    await Promise.all(this.#slots.map((slot) => slot.start(wait)));
    await this.#last;
    const missing = this.#slots.filter(({ up }) => up === null || !this.#introduced.has(up.handle)).map(({ id }) => id);
    if (missing.length > 0)
      throw new SlimeError("engine.unavailable", `${missing.join(", ")} could not be made known to the router`, {
        engine: missing.join(", "),
        reason: "not known to the router",
      });
    this.#started = true;
    router.onStateChange((status) => this.#routerChanged(status));
    for (const [at, worker] of workers.entries()) this.#watchWorker(at, worker);
  }

  async restart(engineId: string, reason: string): Promise<void> {
    const slot = this.#slots.find(({ id }) => id === engineId);
    if (slot === undefined) return;
    this.#parts.log.warn("engine.restarted", { engineId, reason });
    await slot.crash(reason);
  }

  #engineUp(life: EngineLife): void {
    this.#inTurn("introduce engine", () => this.#introduce(life));
  }

  #engineDown({ handle }: EngineLife, reason: string): void {
    this.#gates.forget(handle.url);
    if (this.#introduced.delete(handle)) this.emit({ kind: "engine.died", engineId: handle.id, url: handle.url, reason });
    this.#inTurn("remove engine", async () => {
      try {
        await (await this.#routerPort()).remove(handle.url);
      } catch (error) {
        if (!SlimeError.is(error, "not_found")) throw error;
      }
    });
  }

  #engineNews(engineId: string, { phase, health }: EngineNews): void {
    if (this.#closed) return;
    this.emit({ kind: "engine.phase", engineId, phase: health.kind === "healthy" ? phase : `${phase}, ${health.reason}` });
    const url = this.#slots.find(({ id }) => id === engineId)?.up?.handle.url;
    if (url === undefined) return;
    // F4
    const suspect = health.kind === "suspect";
    if (suspect) this.#parts.log.warn("engine.suspect", { engineId, reason: health.reason });
    this.#inTurn("hold engine", () => (suspect ? this.#gates.hold(url) : this.#gates.release(url)));
  }

  #routerChanged(status: ActorStatus): void {
    if (status.incarnation === this.#routerLife && status.state === "ALIVE") return;
    if (status.state !== "ALIVE") {
      if (this.#isNewDeath(status)) this.emit({ kind: "router.died", reason: status.death?.message ?? `it is ${status.state}` });
      return;
    }
    this.#routerLife = status.incarnation;
    this.#inTurn("raise router", async () => {
      const url = await this.#raiseRouter();
      for (const { up } of this.#slots) if (up !== null) await this.#introduce(up);
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

  /** A worker that came back knows the router it was made with; it is told where the router is now, and which weights serve. */
  #watchWorker(at: number, worker: ActorHandle<RolloutWorker>): void {
    let life = worker.state().incarnation;
    worker.onStateChange((status) => {
      if (status.state !== "ALIVE") {
        if (status.death !== null && this.#isNewDeath(status))
          this.emit({ kind: "worker.died", worker: `rollout-worker-${at}`, reason: status.death.message });
      } else if (status.incarnation !== life) {
        life = status.incarnation;
        this.#inTurn("tell worker", async () => {
          const { url } = await this.#routerPort();
          await worker.setRouter.options({ timeoutMs: controlMsMax })(url);
          this.#tellFloor(this.#gates.floor);
        });
      }
    });
  }

  #isNewDeath({ actorId, death }: ActorStatus): boolean {
    const which = death === null ? "unknown" : `${death.pid} ${death.atMs}`;
    if (this.#told.get(actorId) === which) return false;
    this.#told.set(actorId, which);
    return true;
  }

  #isUp(life: EngineLife): boolean {
    return this.#slots.some(({ up }) => up === life);
  }

  /** F1. An engine that came while no router was there is new with the next one. */
  async #introduce(life: EngineLife): Promise<void> {
    const { handle, role } = life;
    if (!this.#isUp(life)) return;
    const router = await this.#routerPort();
    await router.add(handle.url, { fenced: true, role });
    if (!this.#isUp(life) || this.#introduced.has(handle)) return;
    this.#introduced.add(handle);
    if (this.#started) this.emit({ kind: "engine.started", engineId: handle.id, url: handle.url });
  }

  /** Before the engine that makes it true is opened: whoever sends from then on is answered by these weights or newer ones. */
  #tellFloor(version: number): void {
    for (const worker of this.#parts.workers) {
      try {
        worker.setVersionFloor.send(version);
      } catch (error) {
        // It only makes its replies count as mixed until it is told again.
        this.#parts.log.debug("worker.floor_not_told", { reason: causeChain(error).join(": ") });
      }
    }
  }

  /** The router of this life, over HTTP. */
  async #raiseRouter(): Promise<string> {
    const started = await this.#parts.router.start.options({ timeoutMs: routerStartMsMax })();
    await this.#router?.close();
    this.#router = this.#parts.routerAt(started);
    return started.url;
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
