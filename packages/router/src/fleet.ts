import type { RouterPolicy, RouterWorker } from "@slime/backend";
import { invariant } from "@slime/core";

export type Health = { readonly kind: "unprobed" } | { readonly kind: "healthy" } | { readonly kind: "unhealthy"; readonly reason: string };

/**
 * Whether requests may pass to an engine. `fenced`: someone closed it and only `open` opens it. `stale`: it came (back) with weights that are
 * not the fleet's; it opens by `open`, or when a probe finds the fleet's version on it.
 */
export type Gate =
  | { readonly kind: "open"; readonly version: number | null }
  | { readonly kind: "fenced" }
  | { readonly kind: "stale"; readonly found: string | null };

/** One engine as the router sees it. */
export interface Worker {
  readonly id: string;
  readonly url: string;
  readonly health: Health;
  readonly gate: Gate;
  readonly draining: boolean;
  readonly inFlight: number;
  /** Breaks before the first byte since the last answer. */
  readonly broken: number;
  readonly picks: number;
  readonly errors: number;
}

/** How a request's stay at an engine ended, as far as the engine's health goes. */
export type StayEnd = "answered" | "unreachable" | "broken" | "abandoned";

type Mutable = { -readonly [K in keyof Worker]: Worker[K] };

/**
 * Which engines there are and which may take a request: all decisions, no I/O and no time.
 * F1: only a healthy, open engine that does not drain is picked. F2: in flight = picked − ended, never below zero.
 * F3: an unhealthy engine is healthy again only by a successful probe or by `open`.
 * F4: an engine that was away, or is new, passes requests only at the fleet's version: the highest one opened so far.
 */
export class Fleet {
  readonly #workers = new Map<string, Mutable>();
  readonly #policy: RouterPolicy;
  readonly #brokenMax: number;
  #turn = 0;
  #version: number | null = null;

  constructor(policy: RouterPolicy, brokenMax: number) {
    this.#policy = policy;
    this.#brokenMax = brokenMax;
  }

  get workers(): readonly Worker[] {
    return [...this.#workers.values()];
  }

  /** The highest version opened so far; null before the first. */
  get version(): number | null {
    return this.#version;
  }

  get(id: string): Worker | undefined {
    return this.#workers.get(id);
  }

  byUrl(url: string): Worker | undefined {
    return this.workers.find((worker) => worker.url === url);
  }

  /** Takes in an engine, not to be picked before a probe, or before `open` when `fenced`. A url that is known keeps its id. */
  add(id: string, url: string, fenced = false): Worker {
    const known = this.byUrl(url);
    if (known !== undefined) {
      if (fenced) this.fence(known.id);
      return known;
    }
    const gate: Gate = fenced
      ? { kind: "fenced" }
      : this.#version === null
        ? { kind: "open", version: null }
        : { kind: "stale", found: null };
    const worker: Mutable = { id, url, health: { kind: "unprobed" }, gate, draining: false, inFlight: 0, broken: 0, picks: 0, errors: 0 };
    this.#workers.set(id, worker);
    return worker;
  }

  remove(id: string): boolean {
    return this.#workers.delete(id);
  }

  fence(id: string): void {
    this.#change(id, (worker) => (worker.gate = { kind: "fenced" }));
  }

  /** The caller vouches for the engine: it answers and holds weights `version`. Ends a drain too. */
  open(id: string, version: number): void {
    this.#change(id, (worker) => {
      worker.gate = { kind: "open", version };
      worker.health = { kind: "healthy" };
      worker.draining = false;
      worker.broken = 0;
      this.#version = Math.max(this.#version ?? version, version);
    });
  }

  drain(id: string): void {
    this.#change(id, (worker) => (worker.draining = true));
  }

  /** The engine for the next request, already counted as in flight there, or null. Engines in `avoid` only when there is no other. */
  pick(avoid: ReadonlySet<string>): Worker | null {
    const able = [...this.#workers.values()].filter(isAble);
    const fresh = able.filter(({ id }) => !avoid.has(id));
    const worker = choose(this.#policy, fresh.length > 0 ? fresh : able, this.#turn);
    if (worker === undefined) return null;
    invariant(isAble(worker), "F1: only a healthy, open engine is picked");
    this.#turn++;
    worker.inFlight++;
    worker.picks++;
    return worker;
  }

  /** Engines that may take a request now. */
  get able(): number {
    return [...this.#workers.values()].filter(isAble).length;
  }

  ended(id: string, how: StayEnd, reason: string): void {
    this.#change(id, (worker) => {
      invariant(worker.inFlight > 0, "F2: a request ends where it was picked");
      worker.inFlight--;
      if (how === "answered") worker.broken = 0;
      if (how === "broken" || how === "unreachable") {
        worker.errors++;
        worker.broken++;
        if (how === "unreachable" || worker.broken >= this.#brokenMax) worker.health = { kind: "unhealthy", reason };
      }
    });
  }

  /** What a probe found; `found` is the engine's own word for its weights' version, asked when `wantsVersion`. */
  probed(id: string, result: { readonly ok: true; readonly found: string | null } | { readonly ok: false; readonly reason: string }): void {
    this.#change(id, (worker) => {
      if (!result.ok) {
        worker.health = { kind: "unhealthy", reason: result.reason };
        return;
      }
      const returning = worker.health.kind !== "healthy";
      worker.health = { kind: "healthy" };
      worker.broken = 0;
      if (this.#version === null || worker.gate.kind === "fenced") return;
      if (worker.gate.kind === "stale" || returning) {
        worker.gate =
          result.found === String(this.#version) ? { kind: "open", version: this.#version } : { kind: "stale", found: result.found };
      }
    });
  }

  /** A probe of this engine needs to know its version (F4). */
  wantsVersion(id: string): boolean {
    const worker = this.#workers.get(id);
    return worker !== undefined && this.#version !== null && (worker.health.kind !== "healthy" || worker.gate.kind === "stale");
  }

  #change(id: string, change: (worker: Mutable) => unknown): void {
    const worker = this.#workers.get(id);
    if (worker !== undefined) change(worker);
  }
}

/** May take a request (F1). */
export function isAble(worker: Worker): boolean {
  return worker.health.kind === "healthy" && worker.gate.kind === "open" && !worker.draining;
}

/** Round robin by turns; least in flight with ties in turn, so that equal engines share alike. */
function choose(policy: RouterPolicy, able: readonly Mutable[], turn: number): Mutable | undefined {
  if (policy === "round_robin") return able[turn % able.length];
  const least = Math.min(...able.map(({ inFlight }) => inFlight));
  const equals = able.filter(({ inFlight }) => inFlight === least);
  return equals[turn % equals.length];
}

/** A worker as statistics show it. */
export function workerView(worker: Worker): RouterWorker {
  const state = worker.draining
    ? "draining"
    : worker.gate.kind !== "open"
      ? "fenced"
      : worker.health.kind === "healthy"
        ? "healthy"
        : "unhealthy";
  return {
    id: worker.id,
    url: worker.url,
    state,
    inFlight: worker.inFlight,
    weightVersion: worker.gate.kind === "open" ? worker.gate.version : null,
  };
}
