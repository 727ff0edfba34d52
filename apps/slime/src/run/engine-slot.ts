import type { EngineRole } from "@slime/backend";
import {
  backoffDelayMs,
  type Clock,
  causeChain,
  defaultBackoff,
  factsOf,
  invariant,
  type Logger,
  type Random,
  reasonOf,
  SlimeError,
  sleep,
} from "@slime/core";
import type { ActorHandle, WaitOptions } from "@slime/runtime";
import type { EngineHandle } from "@slime/training";
import type { EngineStarted } from "../actors/engine-process.js";
import type { EngineNews, EngineStart } from "../actors/engine-protocol.js";
import type { RolloutEngine } from "../actors/rollout-engine.js";
import { engineOverActor } from "./engine-over-actor.js";

/** The longest an engine may take to start; its owner ends a start that shows no progress long before. */
const startMsMax = 1_800_000;
/** Starts tried in one life before its processes are ended for the next. */
const startTriesMax = 3;
const controlMsMax = 30_000;
const watchAgainMs = 1_000;

/** One process of an engine, and where it sits now. */
export interface EngineSeat {
  readonly actor: ActorHandle<RolloutEngine>;
  /** Asked at each start: a lost node's bundles are placed again elsewhere. */
  readonly place: () => Promise<{ readonly address: string; readonly gpuUuids: readonly string[] }>;
}

export interface SlotParts {
  readonly id: string;
  readonly role: EngineRole["kind"];
  /** In rank order; rank 0 serves. */
  readonly seats: readonly EngineSeat[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** An engine that serves. */
export interface EngineLife {
  readonly handle: EngineHandle;
  readonly role: EngineRole;
}

/** Whom a slot tells. */
export interface SlotListener {
  /** It answers; nothing may reach it yet. */
  readonly up: (life: EngineLife) => void;
  readonly down: (life: EngineLife, reason: string) => void;
  readonly news: (news: EngineNews) => void;
}

/** Incarnations of the seats' actors, in rank order: together they are one life of the engine. */
type Incarnations = readonly number[];

type SlotState =
  /** Lives up to `spent` are over. */
  | { readonly kind: "down"; readonly spent: Incarnations }
  | { readonly kind: "starting"; readonly life: Incarnations }
  | { readonly kind: "up"; readonly life: Incarnations; readonly engine: EngineLife };

/**
 * One engine over its lives.
 * L1: all processes of an engine live and die together: one that dies ends the others, and the next life begins when all are back.
 * L2: `up` and `down` alternate. L3: a start that fails in a live process is tried again there, then in the next life.
 */
export class EngineSlot {
  readonly id: string;
  readonly #parts: SlotParts;
  readonly #listener: SlotListener;
  #state: SlotState;
  #closed = false;

  constructor(parts: SlotParts, listener: SlotListener) {
    this.id = parts.id;
    this.#parts = parts;
    this.#listener = listener;
    this.#state = { kind: "down", spent: parts.seats.map(() => 0) };
  }

  get up(): EngineLife | null {
    return this.#state.kind === "up" ? this.#state.engine : null;
  }

  /**
   * The first start. @throws what the last try failed with: nothing is restarted before the engine has run once. A server that ended is
   * `engine.unavailable` here: no trainer was lost, so nothing is rolled back for it.
   */
  async start(wait: WaitOptions): Promise<void> {
    await Promise.all(this.#parts.seats.map(({ actor }) => actor.ready(wait)));
    const life = this.#incarnations();
    this.#state = { kind: "starting", life };
    await this.#launch(life).catch((error: unknown) => {
      if (!factsOf(error).retryable) throw error;
      const reason = reasonOf(error);
      throw new SlimeError("engine.unavailable", `${this.id} could not be started: ${reason}`, { engine: this.id, reason });
    });
    for (const { actor } of this.#parts.seats) actor.onStateChange(() => this.#look());
    this.#look();
  }

  /** Ends this life of the engine; its actors' restart policy gives the next. */
  async crash(reason: string): Promise<void> {
    if (this.#state.kind !== "down") await this.#end(this.#state.life, reason);
  }

  async #end(life: Incarnations, reason: string): Promise<void> {
    const living = this.#parts.seats.map(({ actor }, rank) => {
      const { state, incarnation } = actor.state();
      if (state !== "ALIVE" || incarnation !== life[rank]) return undefined;
      return actor.crash
        .options({ timeoutMs: controlMsMax })(incarnation, reason)
        .catch(() => undefined);
    });
    await Promise.all(living);
  }

  /** From here on deaths are the run's own doing. */
  close(): void {
    this.#closed = true;
  }

  /** Compares the actors' lives with the engine's: the only place where a life ends or the next begins. */
  #look(): void {
    if (this.#closed) return;
    const statuses = this.#parts.seats.map(({ actor }) => actor.state());
    const before = this.#state;
    if (before.kind !== "down") {
      const dead = statuses.findIndex(({ state, incarnation }, rank) => state !== "ALIVE" || incarnation !== before.life[rank]);
      if (dead < 0) return;
      const reason = statuses[dead]?.death?.message ?? `it is ${statuses[dead]?.state ?? "gone"}`;
      const said = statuses.length > 1 ? `process ${dead} of ${statuses.length}: ${reason}` : reason;
      this.#state = { kind: "down", spent: before.life };
      // L1.
      void this.#end(before.life, said);
      if (before.kind === "up") this.#listener.down(before.engine, said);
    }
    const { spent } = this.#state as Extract<SlotState, { kind: "down" }>;
    if (!statuses.every(({ state, incarnation }, rank) => state === "ALIVE" && incarnation > (spent[rank] ?? 0))) return;
    const life = this.#incarnations();
    this.#state = { kind: "starting", life };
    this.#launch(life).catch((error: unknown) => {
      this.#parts.log.warn("engine.start_failed", { engine: this.id, reason: causeChain(error).join(": ") });
      // L3. What began to die meanwhile has been looked at already.
      if (this.#isStarting(life)) void this.crash(`it could not be started: ${causeChain(error).join(": ")}`);
    });
  }

  /** Starts the processes of this life and says `up`, unless the life ended meanwhile. */
  async #launch(life: Incarnations): Promise<void> {
    const { clock, random, log } = this.#parts;
    void this.#watch(life);
    for (let attempt = 1; ; attempt++) {
      try {
        const started = await this.#startAll();
        if (!this.#isStarting(life)) return;
        this.#state = { kind: "up", life, engine: this.#engineOf(life, started) };
        return this.#listener.up(this.#state.engine);
      } catch (error) {
        const delayMs = backoffDelayMs(defaultBackoff, attempt + 1, random);
        if (this.#closed || !this.#isStarting(life) || !factsOf(error).retryable || attempt >= startTriesMax || delayMs === null)
          throw error;
        log.warn("engine.start_again", { engine: this.id, attempt, reason: causeChain(error).join(": ") });
        await sleep(clock, delayMs);
      }
    }
  }

  async #startAll(): Promise<EngineStarted> {
    const { seats } = this.#parts;
    const places = await Promise.all(seats.map(({ place }) => place()));
    const [first] = seats;
    invariant(first !== undefined, "an engine has a process");
    const distInitAddress =
      seats.length === 1 ? null : await first.actor.meetingPoint.options({ timeoutMs: controlMsMax })(places[0]?.address ?? "127.0.0.1");
    const started = await Promise.all(
      seats.map(({ actor }, rank) => {
        const plan: EngineStart = { gpuUuids: places[rank]?.gpuUuids ?? [], node: { rank, count: seats.length, distInitAddress } };
        return actor.start.options({ timeoutMs: startMsMax })(plan);
      }),
    );
    const serving = started[0];
    invariant(serving !== undefined, "every process answers");
    return serving;
  }

  #engineOf(life: Incarnations, { url, bootstrapPort }: EngineStarted): EngineLife {
    const actor = this.#parts.seats[0]?.actor;
    invariant(actor !== undefined && url !== null, "rank 0 serves");
    const { role: kind, id } = this.#parts;
    if (kind === "prefill" && bootstrapPort === null)
      throw new SlimeError("engine.state", `${id} prefills and has no bootstrap port`, {
        engine: id,
        state: "started",
        wanted: "a bootstrap port",
      });
    const role: EngineRole = kind === "prefill" ? { kind, bootstrapPort: bootstrapPort ?? 0 } : { kind };
    return { handle: { id, url, engine: engineOverActor(actor, { url, incarnation: life[0] ?? 0 }) }, role };
  }

  /** Passes on what the serving process says of itself, as long as this life lasts. */
  async #watch(life: Incarnations): Promise<void> {
    const actor = this.#parts.seats[0]?.actor;
    let seen = 0;
    while (actor !== undefined && !this.#closed && this.#isIn(life)) {
      try {
        const news = await actor.watch.options({ timeoutMs: null })(seen);
        if (!this.#isIn(life)) return;
        seen = news.seq;
        this.#listener.news(news);
      } catch {
        // Its death is told by its state; a connection that broke comes back.
        await sleep(this.#parts.clock, watchAgainMs);
      }
    }
  }

  #incarnations(): Incarnations {
    return this.#parts.seats.map(({ actor }) => actor.state().incarnation);
  }

  #isIn(life: Incarnations): boolean {
    return this.#state.kind !== "down" && this.#state.life === life;
  }

  #isStarting(life: Incarnations): boolean {
    return this.#state.kind === "starting" && this.#state.life === life;
  }
}
