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
  const { clock, onVerdict } = parts;
  const judge = new HealthJudge(clock.nowMs(), parts.limits ?? defaultHealthLimits);
  const holds = new Set<object>();
  let told: HealthVerdict["kind"] = "healthy";
  let timer: Timer | null = null;
  let probing: AbortController | null = null;
  let tokensBefore: number | null = null;
  let disposed = false;

  const tell = (verdict: HealthVerdict) => {
    if (verdict.kind !== told && !disposed) {
      told = verdict.kind;
      onVerdict(verdict);
    }
    arm();
  };
  const observe = (event: HealthEvent) => {
    if (!disposed) tell(judge.observe(event, clock.nowMs()));
  };
  const arm = () => {
    timer?.cancel();
    if (disposed || told === "dead") return;
    const nowMs = clock.nowMs();
    const tokensAtMs = probing === null || parts.tokens === undefined ? null : nowMs + tokensEveryMs;
    const times = [judge.probeAtMs(), judge.changesAtMs(nowMs), tokensAtMs].filter((at) => at !== null);
    if (times.length > 0) timer = clock.after(Math.max(0, Math.min(...times) - nowMs), wake);
  };
  const wake = () => {
    if (probing !== null) void countTokens();
    const probeAtMs = judge.probeAtMs();
    if (probeAtMs !== null && probeAtMs <= clock.nowMs()) void sendProbe();
    else tell(judge.verdict(clock.nowMs()));
  };
  const sendProbe = async () => {
    stopProbe(); // tokens may have spoken for it first
    const own = new AbortController();
    probing = own;
    observe({ kind: "probe-sent" });
    tokensBefore = null; // what moved before this probe says nothing of now
    void countTokens();
    const outcome = await parts.probe(own.signal).catch((error: unknown): ProbeOutcome => ({ kind: "refused", reason: reasonOf(error) }));
    if (probing !== own) return; // a hold came between
    probing = null;
    if (outcome.kind === "answered" && outcome.status === 200) return observe({ kind: "life", sign: "probe" });
    const reason =
      outcome.kind === "refused"
        ? `/health_generate: ${outcome.reason}`
        : outcome.kind === "silent"
          ? "no answer to /health_generate"
          : `/health_generate answered ${outcome.status}`;
    observe({ kind: "probe-failed", reason, refused: outcome.kind === "refused" });
  };
  const countTokens = async () => {
    const count = await parts.tokens?.().catch(() => null);
    if (count === undefined || count === null || disposed) return;
    const moved = tokensBefore !== null && count !== tokensBefore;
    tokensBefore = count;
    if (moved && holds.size === 0) observe({ kind: "life", sign: "tokens" });
  };
  const stopProbe = () => {
    probing?.abort();
    probing = null;
  };
  void parts.exited.then(({ reason }) => observe({ kind: "exited", reason }));
  arm();
  return {
    verdict: () => judge.verdict(clock.nowMs()),
    saw: (what) => observe(what === "request-broken" ? { kind: what } : { kind: "life", sign: what }),
    hold(why) {
      const key = {};
      holds.add(key);
      stopProbe();
      observe({ kind: "held", why });
      return {
        [Symbol.dispose]() {
          if (holds.delete(key) && holds.size === 0) observe({ kind: "let-go" });
        },
      };
    },
    [Symbol.dispose]() {
      disposed = true;
      stopProbe();
      timer?.cancel();
    },
  };
}
