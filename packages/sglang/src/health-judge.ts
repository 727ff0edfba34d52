/**
 * Whether an engine is alive, from what it does. A pure state machine over events and times.
 * J1 an exit is final, at once, whatever else holds.
 * J2 while it is held (paused, updated, released) nothing else is judged, and every wait begins anew when the hold ends: an engine
 *    that is held answers no probe and moves no token.
 * J3 a sign of life (a token, an answered request, an answered probe) ends every doubt.
 * J4 without a sign of life it is suspect no later than `probeEveryMs` + `silenceMsMax` after the last one, if probes are sent when they
 *    are asked for; and never before a probe was refused, or unanswered for `silenceMsMax`.
 * J5 without a sign of life for `deadMs` while a probe is wanting it is dead, and that is final.
 */
export interface HealthLimits {
  /** From a sign of life to the next probe. */
  readonly probeEveryMs: number;
  /** A probe unanswered for so long makes it suspect. SGLang's own takes 1.0 to 1.1 s at best. */
  readonly silenceMsMax: number;
  /** Without a sign of life for so long it is to be restarted. */
  readonly deadMs: number;
  /** After a start or a hold nothing is judged for so long: first requests may have kernels compiled. */
  readonly firstWaitMs: number;
}

/** Suspect within 8 s of a stop, dead after 30. */
export const defaultHealthLimits: HealthLimits = { probeEveryMs: 3_000, silenceMsMax: 5_000, deadMs: 30_000, firstWaitMs: 0 };

export type HealthEvent =
  | { readonly kind: "exited"; readonly reason: string }
  /** Something it answered or produced. */
  | { readonly kind: "life"; readonly sign: "tokens" | "request" | "probe" }
  /** A request's connection broke without an answer: reason to ask, not to judge. */
  | { readonly kind: "request-broken" }
  | { readonly kind: "probe-sent" }
  /** The probe was not answered well: nothing listens, or it said that it is unwell. */
  | { readonly kind: "probe-failed"; readonly reason: string; readonly refused: boolean }
  | { readonly kind: "held"; readonly why: string }
  | { readonly kind: "let-go" };

/** `suspect`: route nothing to it. `dead`: restart it. */
export type HealthVerdict =
  | { readonly kind: "healthy" }
  | { readonly kind: "suspect"; readonly reason: string }
  | { readonly kind: "dead"; readonly reason: string };

type State =
  | {
      readonly kind: "judged";
      /** The last sign of life; later than now during the first wait. */
      readonly lifeAtMs: number;
      readonly sign: string;
      /** When the first probe since then was sent that is not answered. */
      readonly doubtAtMs: number | null;
      /** A probe is under way. */
      readonly probing: boolean;
      readonly probeAtMs: number;
      readonly refused: string | null;
    }
  | { readonly kind: "held"; readonly why: string }
  | { readonly kind: "dead"; readonly reason: string };

const healthy: HealthVerdict = { kind: "healthy" };

/** Between a probe that failed and the next: what refuses costs nothing to ask. */
const failedPauseMs = 1_000;

const signs = { tokens: "tokens", request: "an answered request", probe: "an answered probe" } as const;

/** Judges one life of an engine. Times are of one monotonic clock and do not fall. */
export class HealthJudge {
  readonly #limits: HealthLimits;
  #state: State;

  constructor(nowMs: number, limits: HealthLimits = defaultHealthLimits) {
    this.#limits = limits;
    this.#state = this.#alive(nowMs + limits.firstWaitMs, "its start");
  }

  /** Takes what happened at `nowMs` and says what it makes of the engine. */
  observe(event: HealthEvent, nowMs: number): HealthVerdict {
    this.verdict(nowMs);
    if (this.#state.kind !== "dead") this.#state = this.#next(this.#state, event, nowMs);
    return this.verdict(nowMs);
  }

  /** What it is at `nowMs` if nothing else has happened. */
  verdict(nowMs: number): HealthVerdict {
    const state = this.#state;
    if (state.kind === "dead") return { kind: "dead", reason: state.reason };
    if (state.kind === "held" || state.doubtAtMs === null) return healthy;
    const silentMs = nowMs - state.lifeAtMs;
    const reason = `${state.refused ?? "no answer to /health_generate"}; last sign of life, ${state.sign}, ${Math.round(silentMs / 1000)} s ago`;
    if (silentMs >= this.#limits.deadMs) {
      this.#state = { kind: "dead", reason };
      return { kind: "dead", reason };
    }
    return state.refused !== null || nowMs - state.doubtAtMs >= this.#limits.silenceMsMax ? { kind: "suspect", reason } : healthy;
  }

  /** When a probe is to be sent; null: none for now. */
  probeAtMs(): number | null {
    return this.#state.kind === "judged" && !this.#state.probing ? this.#state.probeAtMs : null;
  }

  /** When the verdict changes if nothing happens until then; null: never. */
  changesAtMs(nowMs: number): number | null {
    const state = this.#state;
    if (state.kind !== "judged" || state.doubtAtMs === null) return null;
    const deadAtMs = state.lifeAtMs + this.#limits.deadMs;
    const suspectAtMs = state.doubtAtMs + this.#limits.silenceMsMax;
    return state.refused === null && suspectAtMs > nowMs ? Math.min(suspectAtMs, deadAtMs) : deadAtMs;
  }

  #next(state: Exclude<State, { readonly kind: "dead" }>, event: HealthEvent, nowMs: number): State {
    switch (event.kind) {
      case "exited":
        return { kind: "dead", reason: event.reason };
      case "held":
        return { kind: "held", why: event.why };
      case "let-go":
        return state.kind === "held" ? this.#alive(nowMs + this.#limits.firstWaitMs, `the end of ${state.why}`) : state;
      case "life":
        return state.kind === "held" ? state : this.#alive(Math.max(nowMs, state.lifeAtMs), signs[event.sign]);
      case "request-broken":
        return state.kind === "held" ? state : { ...state, probeAtMs: Math.max(nowMs, state.lifeAtMs) };
      case "probe-sent":
        return state.kind === "held" ? state : { ...state, probing: true, doubtAtMs: state.doubtAtMs ?? nowMs };
      case "probe-failed":
        return state.kind === "held" || !state.probing
          ? state
          : { ...state, probing: false, probeAtMs: nowMs + failedPauseMs, refused: event.refused ? event.reason : state.refused };
    }
  }

  #alive(lifeAtMs: number, sign: string): State {
    const probeAtMs = lifeAtMs + this.#limits.probeEveryMs;
    return { kind: "judged", lifeAtMs, sign, doubtAtMs: null, probing: false, probeAtMs, refused: null };
  }
}
