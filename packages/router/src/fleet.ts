import type { EngineRole, RouterWorker } from "@slime/backend";
import { invariant } from "@slime/core";
import { noHint, type Policy, type RouteHint } from "./policies/policy.js";
import { isVersion, newestShared } from "./versions.js";

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
  readonly role: EngineRole;
  readonly health: Health;
  readonly gate: Gate;
  readonly draining: boolean;
  readonly inFlight: number;
  /** Breaks since the last answer. */
  readonly broken: number;
  readonly picks: number;
  readonly errors: number;
}

/** A prefill and a decode engine that answer a request together. */
export interface Pair {
  readonly prefill: Worker;
  readonly decode: Worker;
}

/** How a request's stay at an engine ended, as far as the engine's health goes. */
export type StayEnd = "answered" | "unreachable" | "broken" | "abandoned";

/** The policy of each kind of choice; each keeps its own state. */
export interface FleetPolicies {
  readonly whole: Policy;
  readonly prefill: Policy;
  readonly decode: Policy;
}

type Mutable = { -readonly [K in keyof Worker]: Worker[K] };
type Able = { readonly [G in EngineRole["kind"] | "all"]: readonly Mutable[] } & { readonly isSplit: boolean };

const regularRole: EngineRole = { kind: "regular" };
const none: ReadonlySet<string> = new Set();

/**
 * Which engines there are and which may take a request: all decisions, no I/O and no time.
 * F1: only a healthy, open engine that does not drain is picked. F2: in flight = picked − ended, never below zero.
 * F3: an unhealthy engine is healthy again only by a successful probe or by `open`.
 * F4: an engine that was away, or is new, passes requests only at the fleet's version: the highest one opened so far.
 * F5: the two of a pair have one version; keys and values of one version's prompt mean nothing to another's weights.
 */
export class Fleet {
  readonly #workers = new Map<string, Mutable>();
  readonly #policies: FleetPolicies;
  readonly #brokenMax: number;
  /** Engines that may take a request, by role; made anew after a change. */
  #able: Able | null = null;
  #version: number | null = null;
  #ejections = 0;

  constructor(policies: FleetPolicies, brokenMax: number) {
    this.#policies = policies;
    this.#brokenMax = brokenMax;
  }

  get workers(): readonly Worker[] {
    return [...this.#workers.values()];
  }

  /** The highest version opened so far; null before the first. */
  get version(): number | null {
    return this.#version;
  }

  /** Times an engine was found not to work. */
  get ejections(): number {
    return this.#ejections;
  }

  /** Engines that may take a request now. */
  get able(): number {
    return this.#ables().all.length;
  }

  /** Prefill and decode engines are registered, able or not: generation goes to pairs. */
  get isSplit(): boolean {
    return this.#ables().isSplit;
  }

  /** A request for generation would find an engine, or a pair of them. */
  get isReady(): boolean {
    const { isSplit, all, regular, prefill, decode } = this.#ables();
    return isSplit ? regular.length > 0 || pairVersion(prefill, decode) !== undefined : all.length > 0;
  }

  count(role: EngineRole["kind"]): number {
    let count = 0;
    for (const worker of this.#workers.values()) if (worker.role.kind === role) count++;
    return count;
  }

  get(id: string): Worker | undefined {
    return this.#workers.get(id);
  }

  byUrl(url: string): Worker | undefined {
    for (const worker of this.#workers.values()) if (worker.url === url) return worker;
    return undefined;
  }

  /** Takes in an engine, not to be picked before a probe, or before `open` when `fenced`. A url that is known keeps its id and takes the new role, if one is named. */
  add(
    id: string,
    url: string,
    { fenced = false, role = null }: { readonly fenced?: boolean; readonly role?: EngineRole | null } = {},
  ): Worker {
    const known = this.byUrl(url);
    if (known !== undefined) {
      if (role !== null) this.#change(known.id, (worker) => (worker.role = role));
      if (fenced) this.fence(known.id);
      return known;
    }
    const gate: Gate = fenced
      ? { kind: "fenced" }
      : this.#version === null
        ? { kind: "open", version: null }
        : { kind: "stale", found: null };
    const worker: Mutable = {
      ...{ id, url, role: role ?? regularRole, health: { kind: "unprobed" }, gate },
      ...{ draining: false, inFlight: 0, broken: 0, picks: 0, errors: 0 },
    };
    this.#workers.set(id, worker);
    this.#able = null;
    return worker;
  }

  remove(id: string): boolean {
    this.#forget(id);
    this.#able = null;
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
      this.#forget(id);
    });
  }

  drain(id: string): void {
    this.#change(id, (worker) => (worker.draining = true));
  }

  /** It does not work, whoever found that out. */
  eject(id: string, reason: string): void {
    this.#change(id, (worker) => {
      if (worker.health.kind !== "unhealthy") this.#ejections++;
      worker.health = { kind: "unhealthy", reason };
      this.#forget(id);
    });
  }

  /**
   * The engine for the next request, already counted as in flight there, or null. Engines in `avoid` only when there is no other.
   * @param group `all` for what any engine can answer; `regular` for generation, which half a pair cannot do alone.
   */
  pick(avoid: ReadonlySet<string> = none, hint: RouteHint = noHint, group: "all" | "regular" = "all"): Worker | null {
    const able = preferred(this.#ables()[group], avoid);
    return able.length === 0 ? null : this.#take(this.#policies.whole.choose(able, hint));
  }

  /** The pair for the next request, both counted as in flight, or null when there is no able pair of one version. */
  pickPair(avoid: ReadonlySet<string> = none, hint: RouteHint = noHint): Pair | null {
    const { prefill, decode } = this.#ables();
    const version = pairVersion(prefill, decode);
    if (version === undefined) return null;
    const atVersion = (worker: Mutable) => gateVersion(worker) === version;
    const first = this.#policies.prefill.choose(preferred(prefill.filter(atVersion), avoid), hint);
    const second = this.#policies.decode.choose(preferred(decode.filter(atVersion), avoid), hint);
    return { prefill: this.#take(first), decode: this.#take(second) };
  }

  #take(worker: Mutable): Worker {
    invariant(isAble(worker), "F1: only a healthy, open engine is picked");
    worker.inFlight++;
    worker.picks++;
    return worker;
  }

  ended(id: string, how: StayEnd, reason: string): void {
    const worker = this.#workers.get(id);
    if (worker === undefined) return;
    invariant(worker.inFlight > 0, "F2: a request ends where it was picked");
    worker.inFlight--;
    if (how === "answered") worker.broken = 0;
    if (how === "broken" || how === "unreachable") {
      worker.errors++;
      worker.broken++;
      if (how === "unreachable" || worker.broken >= this.#brokenMax) this.eject(id, reason);
      // F4: another process may answer at its address by now, with other weights.
      else if (this.#version !== null) this.#change(id, () => (worker.health = { kind: "unprobed" }));
    }
  }

  /** A probe was answered well; `found` is the engine's own word for its weights' version, asked when `wantsVersion`. */
  admit(id: string, found: string | null): void {
    this.#change(id, (worker) => {
      const returning = worker.health.kind !== "healthy";
      worker.health = { kind: "healthy" };
      worker.broken = 0;
      if (this.#version === null || worker.gate.kind === "fenced") return;
      if (worker.gate.kind === "stale" || returning)
        worker.gate = isVersion(found, this.#version) ? { kind: "open", version: this.#version } : { kind: "stale", found };
    });
  }

  /** A probe of this engine needs to know its version (F4). */
  wantsVersion(id: string): boolean {
    const worker = this.#workers.get(id);
    return worker !== undefined && this.#version !== null && (worker.health.kind !== "healthy" || worker.gate.kind === "stale");
  }

  #change(id: string, change: (worker: Mutable) => unknown): void {
    const worker = this.#workers.get(id);
    if (worker === undefined) return;
    change(worker);
    this.#able = null;
  }

  #ables(): Able {
    if (this.#able !== null) return this.#able;
    const all = [...this.#workers.values()].filter(isAble);
    const of = (kind: EngineRole["kind"]) => all.filter(({ role }) => role.kind === kind);
    const isSplit = this.count("prefill") > 0 && this.count("decode") > 0;
    return (this.#able = { isSplit, all, regular: of("regular"), prefill: of("prefill"), decode: of("decode") });
  }

  #forget(id: string): void {
    for (const policy of [this.#policies.whole, this.#policies.prefill, this.#policies.decode]) policy.forget(id);
  }
}

/** May take a request (F1). */
export function isAble(worker: Worker): boolean {
  return worker.health.kind === "healthy" && worker.gate.kind === "open" && !worker.draining;
}

function preferred(able: readonly Mutable[], avoid: ReadonlySet<string>): readonly Mutable[] {
  if (avoid.size === 0) return able;
  const fresh = able.filter(({ id }) => !avoid.has(id));
  return fresh.length > 0 ? fresh : able;
}

function gateVersion({ gate }: Worker): number | null {
  return gate.kind === "open" ? gate.version : null;
}

/** The newest version that engines of both roles have; undefined when there is none (F5). */
function pairVersion(prefill: readonly Worker[], decode: readonly Worker[]): number | null | undefined {
  return newestShared(prefill.map(gateVersion), decode.map(gateVersion));
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
