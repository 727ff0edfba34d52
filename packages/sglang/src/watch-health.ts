import { type Clock, reasonOf, type Timer } from "@slime/core";
import { defaultHealthLimits, type HealthEvent, HealthJudge, type HealthLimits, type HealthVerdict } from "./health-judge.js";
import type { ProbeOutcome } from "./http-probe.js";

/** How often tokens are counted while a probe is wanting. */
const tokensEveryMs = 1_000;

export interface WatchHealthParts {
  readonly clock: Clock;
  readonly limits?: HealthLimits;
  /** `/health_generate`, as long as the signal allows: a late answer is a sign of life too. */
  readonly probe: (signal: AbortSignal) => Promise<ProbeOutcome>;
  /** A number that changes while it generates; a failure counts as no change. SGLang answers this from its front, also when its scheduler hangs. */
  readonly tokens?: () => Promise<number>;
  /** Of the server's process. */
  readonly exited: Promise<{ readonly reason: string }>;
  /** At each change: healthy, suspect, dead. */
  readonly onVerdict: (verdict: HealthVerdict) => void;
}

export interface HealthWatch extends Disposable {
  readonly verdict: () => HealthVerdict;
  /** What its callers see: an answer, tokens of a stream, or a connection that broke before an answer. */
  readonly saw: (what: "request" | "tokens" | "request-broken") => void;
  /** Nothing is judged until what this returns is disposed: for pauses, updates and released memory. Several holds may overlap. */
  readonly hold: (why: string) => Disposable;
}

/** Judges an engine by its process, its requests, its tokens and probes: the shell of `HealthJudge`. */
export function watchHealth(parts: WatchHealthParts): HealthWatch {
  return new Watch(parts);
}

class Watch implements HealthWatch {
  readonly #parts: WatchHealthParts;
  readonly #judge: HealthJudge;
  readonly #holds = new Set<object>();
  #told: HealthVerdict["kind"] = "healthy";
  #timer: Timer | null = null;
  /** The probe under way. */
  #probing: AbortController | null = null;
  #tokensBefore: number | null = null;
  #disposed = false;

  constructor(parts: WatchHealthParts) {
    this.#parts = parts;
    this.#judge = new HealthJudge(parts.clock.nowMs(), parts.limits ?? defaultHealthLimits);
    void parts.exited.then(({ reason }) => this.#observe({ kind: "exited", reason }));
    this.#arm();
  }

  verdict(): HealthVerdict {
    return this.#judge.verdict(this.#parts.clock.nowMs());
  }

  saw(what: "request" | "tokens" | "request-broken"): void {
    this.#observe(what === "request-broken" ? { kind: what } : { kind: "life", sign: what });
  }

  hold(why: string): Disposable {
    const key = {};
    this.#holds.add(key);
    this.#stopProbe();
    this.#observe({ kind: "held", why });
    return {
      [Symbol.dispose]: () => {
        if (this.#holds.delete(key) && this.#holds.size === 0) this.#observe({ kind: "let-go" });
      },
    };
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#stopProbe();
    this.#timer?.cancel();
  }

  #observe(event: HealthEvent): void {
    if (!this.#disposed) this.#tell(this.#judge.observe(event, this.#parts.clock.nowMs()));
  }

  #tell(verdict: HealthVerdict): void {
    if (verdict.kind !== this.#told) {
      this.#told = verdict.kind;
      this.#parts.onVerdict(verdict);
    }
    this.#arm();
  }

  /** Wakes when the next probe is due, when the verdict changes by itself, or to count tokens. */
  #arm(): void {
    this.#timer?.cancel();
    if (this.#disposed || this.#told === "dead") return;
    const nowMs = this.#parts.clock.nowMs();
    const tokensAtMs = this.#probing === null || this.#parts.tokens === undefined ? null : nowMs + tokensEveryMs;
    const times = [this.#judge.probeAtMs(), this.#judge.changesAtMs(nowMs), tokensAtMs].filter((at) => at !== null);
    if (times.length > 0) this.#timer = this.#parts.clock.after(Math.max(0, Math.min(...times) - nowMs), () => this.#wake());
  }

  #wake(): void {
    if (this.#probing !== null) void this.#countTokens();
    const nowMs = this.#parts.clock.nowMs();
    const probeAtMs = this.#judge.probeAtMs();
    if (probeAtMs !== null && probeAtMs <= nowMs) void this.#sendProbe();
    else this.#tell(this.#judge.verdict(nowMs));
  }

  async #sendProbe(): Promise<void> {
    this.#stopProbe(); // tokens may have spoken for it first
    const own = new AbortController();
    this.#probing = own;
    this.#observe({ kind: "probe-sent" });
    this.#tokensBefore = null; // what moved before this probe says nothing of now
    void this.#countTokens();
    const outcome = await this.#parts
      .probe(own.signal)
      .catch((error: unknown): ProbeOutcome => ({ kind: "refused", reason: reasonOf(error) }));
    if (this.#probing !== own) return; // a hold came between
    this.#probing = null;
    this.#observe(probeEvent(outcome));
  }

  async #countTokens(): Promise<void> {
    const count = await this.#parts.tokens?.().catch(() => null);
    if (count === undefined || count === null || this.#disposed) return;
    const moved = this.#tokensBefore !== null && count !== this.#tokensBefore;
    this.#tokensBefore = count;
    if (moved && this.#holds.size === 0) this.#observe({ kind: "life", sign: "tokens" });
  }

  #stopProbe(): void {
    this.#probing?.abort();
    this.#probing = null;
  }
}

function probeEvent(outcome: ProbeOutcome): HealthEvent {
  switch (outcome.kind) {
    case "refused":
      return { kind: "probe-failed", reason: `/health_generate: ${outcome.reason}`, refused: true };
    case "silent":
      return { kind: "probe-failed", reason: "no answer to /health_generate", refused: false };
    case "answered":
      return outcome.status === 200
        ? { kind: "life", sign: "probe" }
        : { kind: "probe-failed", reason: `/health_generate answered ${outcome.status}`, refused: false };
  }
}
