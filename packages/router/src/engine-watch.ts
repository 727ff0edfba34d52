import type { Clock, Logger, Timer } from "@slime/core";
import type { Fleet, Worker } from "./fleet.js";
import { Liveness } from "./liveness.js";
import type { RouterLimits } from "./options.js";
import type { Transport } from "./transport.js";

/** Timers may fire so much before their time. */
const timerSlackMs = 2;

interface Watched {
  readonly liveness: Liveness;
  /** Grows when what a probe would say is no longer wanted: an answer to an older one is ignored. */
  epoch: number;
  /** Paused through the router: silence is expected. */
  paused: boolean;
  probing: Promise<void> | null;
  /** The probe under way asks for the version. */
  asksVersion: boolean;
  /** Looks again when it may have stalled. */
  timer: Timer | null;
}

export interface WatchCounts {
  /** Probes with a good answer, and without one. */
  readonly answered: number;
  readonly failed: number;
}

/** What follows from a verdict. */
export interface WatchEffects {
  /** Nothing comes from this engine: what is in flight there has to go elsewhere. */
  readonly giveUp: (id: string) => void;
  /** Requests may have become possible. */
  readonly admitted: () => void;
}

/**
 * Probes engines and judges them.
 * G1: a fenced or paused engine is neither probed nor judged, and an answer to a probe from before counts for nothing.
 * G2: a hung engine (V1) is ejected; with a probe every `probeEveryMs` that is `probeEveryMs + probeTimeoutMs` after its last sign of life at
 * the latest, `stallMs` being no longer than that. G3: an engine that says it is unwell, or cannot be reached, gets no new request at once,
 * but keeps those in flight until nothing has come from it for `stallMs`: a server that shuts down may still finish them.
 */
export class EngineWatch {
  readonly #fleet: Fleet;
  readonly #transport: Transport;
  readonly #limits: RouterLimits;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #effects: WatchEffects;
  readonly #watched = new Map<string, Watched>();
  readonly #counts = { answered: 0, failed: 0 };

  constructor(
    fleet: Fleet,
    transport: Transport,
    limits: RouterLimits,
    context: { readonly clock: Clock; readonly log: Logger },
    effects: WatchEffects,
  ) {
    this.#fleet = fleet;
    this.#transport = transport;
    this.#limits = limits;
    this.#clock = context.clock;
    this.#log = context.log;
    this.#effects = effects;
  }

  get counts(): WatchCounts {
    return this.#counts;
  }

  /** Where an engine's bytes are noted. */
  liveness(id: string): Liveness {
    return this.#of(id).liveness;
  }

  isPaused(id: string): boolean {
    return this.#watched.get(id)?.paused ?? false;
  }

  /** Silence is expected from now on (G1). */
  suspend(id: string, why: "fenced" | "paused"): void {
    const watched = this.#of(id);
    if (why === "paused") watched.paused = true;
    watched.epoch++;
    watched.probing = null;
    watched.timer?.cancel();
    watched.timer = null;
  }

  /** It is expected to answer again; its time starts anew. */
  resume(id: string): void {
    const watched = this.#of(id);
    watched.paused = false;
    watched.epoch++;
    watched.probing = null;
    watched.liveness.resumed(this.#clock.nowMs());
  }

  /** What is known of it may be out of date: asks it, and anew if the probe under way does not ask all that matters now. */
  doubt(id: string): void {
    const watched = this.#of(id);
    if (watched.probing !== null && (watched.asksVersion || !this.#fleet.wantsVersion(id))) return;
    watched.epoch++;
    watched.probing = null;
    void this.probe(id);
  }

  forget(id: string): void {
    this.#watched.get(id)?.timer?.cancel();
    this.#watched.delete(id);
  }

  /** Asks an engine how it is and acts on it; one probe of an engine at a time. */
  probe(id: string): Promise<void> {
    const worker = this.#fleet.get(id);
    if (worker === undefined || this.#isExcused(worker)) return Promise.resolve();
    const watched = this.#of(id);
    if (watched.probing !== null) return watched.probing;
    const probing = this.#probe(worker, watched).finally(() => {
      if (watched.probing === probing) watched.probing = null;
    });
    return (watched.probing = probing);
  }

  async #probe(worker: Worker, watched: Watched): Promise<void> {
    const { id, url } = worker;
    const { epoch } = watched;
    const startedMs = this.#clock.nowMs();
    const { probeTimeoutMs: timeoutMs } = this.#limits;
    watched.asksVersion = this.#fleet.wantsVersion(id);
    const result = await this.#transport.probe(url, { timeoutMs, version: watched.asksVersion });
    if (watched.epoch !== epoch || this.#watched.get(id) !== watched || this.#isExcused(worker)) return;
    const before = worker.health.kind;
    if (result.ok) {
      this.#counts.answered++;
      watched.liveness.answered();
      this.#fleet.admit(id, result.found);
      if (before !== "healthy") this.#log.info("router.worker_admitted", { worker: url, gate: worker.gate.kind, found: result.found });
      this.#effects.admitted();
      return;
    }
    this.#counts.failed++;
    if (before === "healthy" && this.#clock.nowMs() - startedMs >= timeoutMs - timerSlackMs) watched.liveness.unanswered();
    else this.#eject(worker, result.reason);
    this.judge(id);
  }

  /** Acts on what is known of an engine now; looks again when that may tell more. */
  judge(id: string): void {
    const worker = this.#fleet.get(id);
    if (worker === undefined || this.#isExcused(worker)) return;
    const watched = this.#of(id);
    watched.timer?.cancel();
    watched.timer = null;
    if (worker.health.kind === "healthy" && !watched.liveness.isSilent) return;
    const now = this.#clock.nowMs();
    const inMs = watched.liveness.stalledInMs(now);
    if (inMs > 0) {
      if (worker.health.kind === "healthy" || worker.inFlight > 0) watched.timer = this.#clock.after(inMs, () => this.judge(id));
      return;
    }
    if (worker.health.kind === "healthy") {
      const quiet = `it sent nothing for ${Math.round(watched.liveness.quietMs(now))} ms`;
      this.#eject(worker, `${quiet} and did not answer a probe within ${this.#limits.probeTimeoutMs} ms`);
    }
    this.#effects.giveUp(id);
  }

  #eject(worker: Worker, reason: string): void {
    const wasOut = worker.health.kind === "unhealthy";
    this.#fleet.eject(worker.id, reason);
    if (!wasOut) this.#log.warn("router.worker_ejected", { worker: worker.url, reason });
  }

  #isExcused({ id, gate }: Worker): boolean {
    return gate.kind === "fenced" || this.isPaused(id);
  }

  #of(id: string): Watched {
    const known = this.#watched.get(id);
    if (known !== undefined) return known;
    const made: Watched = {
      liveness: new Liveness(this.#limits.stallMs, this.#clock.nowMs()),
      epoch: 0,
      paused: false,
      probing: null,
      asksVersion: false,
      timer: null,
    };
    this.#watched.set(id, made);
    return made;
  }
}
