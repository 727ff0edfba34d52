import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type HealthEvent, HealthJudge, defaultHealthLimits as limits } from "./health-judge.js";

const life = (sign: "tokens" | "request" | "probe" = "probe"): HealthEvent => ({ kind: "life", sign });
const refused: HealthEvent = { kind: "probe-failed", reason: "ECONNREFUSED", refused: true };

describe("an engine's health", () => {
  it("is suspect within 8 s of a stop and dead after 30, by a probe that stays unanswered (J4, J5)", () => {
    const judge = new HealthJudge(0);
    judge.observe(life(), 1_000); // the last thing before the stop
    expect(judge.probeAtMs()).toBe(4_000);
    judge.observe({ kind: "probe-sent" }, 4_000);
    expect(judge.verdict(8_999)).toEqual({ kind: "healthy" });
    expect(judge.changesAtMs(4_000)).toBe(9_000);
    expect(judge.verdict(9_000)).toEqual({
      kind: "suspect",
      reason: "no answer to /health_generate; last sign of life, an answered probe, 8 s ago",
    });
    expect(judge.changesAtMs(9_000)).toBe(31_000);
    expect(judge.verdict(30_999).kind).toBe("suspect");
    expect(judge.verdict(31_000).kind).toBe("dead");
  });

  it.each(["tokens", "request", "probe"] as const)("is well again with %s (J3)", (sign) => {
    const judge = new HealthJudge(0);
    judge.observe({ kind: "probe-sent" }, 3_000);
    expect(judge.verdict(20_000).kind).toBe("suspect");
    expect(judge.observe(life(sign), 20_000).kind).toBe("healthy");
    expect(judge.probeAtMs()).toBe(23_000);
  });

  it("is suspect at once when nobody listens, and asked again soon", () => {
    const judge = new HealthJudge(0);
    judge.observe({ kind: "probe-sent" }, 3_000);
    expect(judge.observe(refused, 3_001)).toMatchObject({ kind: "suspect", reason: expect.stringContaining("ECONNREFUSED") });
    expect(judge.probeAtMs()).toBe(4_001);
  });

  it("is asked at once after a broken request, and not judged by it", () => {
    const judge = new HealthJudge(0);
    expect(judge.observe({ kind: "request-broken" }, 500).kind).toBe("healthy");
    expect(judge.probeAtMs()).toBe(500);
  });

  it("is not judged while held, and anew afterwards (J2)", () => {
    const judge = new HealthJudge(0, { ...limits, firstWaitMs: 60_000 });
    judge.observe({ kind: "probe-sent" }, 63_000);
    judge.observe({ kind: "held", why: "update" }, 64_000);
    expect(judge.verdict(1_000_000).kind).toBe("healthy");
    expect(judge.probeAtMs()).toBeNull();
    judge.observe({ kind: "let-go" }, 1_000_000);
    expect(judge.probeAtMs()).toBe(1_063_000);
    judge.observe({ kind: "request-broken" }, 1_000_500);
    expect(judge.probeAtMs()).toBe(1_060_000); // the first wait stands
  });

  const event: fc.Arbitrary<HealthEvent> = fc.oneof(
    fc.constantFrom(life("tokens"), life("request"), life("probe")),
    fc.constant<HealthEvent>({ kind: "request-broken" }),
    fc.constant<HealthEvent>({ kind: "probe-sent" }),
    fc.boolean().map((isRefused): HealthEvent => ({ kind: "probe-failed", reason: "no", refused: isRefused })),
    fc.constant<HealthEvent>({ kind: "held", why: "pause" }),
    fc.constant<HealthEvent>({ kind: "let-go" }),
    fc.constant<HealthEvent>({ kind: "exited", reason: "exit code 1" }),
  );
  const history = fc.array(fc.record({ afterMs: fc.integer({ min: 0, max: 12_000 }), event }), { maxLength: 40 });

  it("J1, J2, J3, J4 (never too soon), J5 hold over every history", () => {
    fc.assert(
      fc.property(history, fc.integer({ min: 0, max: 60_000 }), (steps, restMs) => {
        const judge = new HealthJudge(0);
        let nowMs = 0;
        let lifeAtMs = 0;
        let doubtAtMs: number | null = null;
        let failed = false;
        let held = false;
        let dead = false;
        const check = () => {
          const { kind } = judge.verdict(nowMs);
          if (dead) return expect(kind).toBe("dead");
          dead = kind === "dead";
          if (held) return expect(kind).toBe("healthy");
          if (doubtAtMs === null) return expect(kind).toBe("healthy");
          if (kind === "dead") expect(nowMs - lifeAtMs).toBeGreaterThanOrEqual(limits.deadMs);
          if (kind === "suspect") expect(failed || nowMs - doubtAtMs >= limits.silenceMsMax).toBe(true);
          if (kind === "healthy") expect(nowMs - doubtAtMs).toBeLessThan(limits.silenceMsMax);
        };
        for (const step of steps) {
          nowMs += step.afterMs;
          check();
          judge.observe(step.event, nowMs);
          if (step.event.kind === "exited") dead = true;
          else if (step.event.kind === "held") held = true;
          else if (step.event.kind === "let-go" ? held : step.event.kind === "life" && !held) {
            held = false;
            lifeAtMs = nowMs;
            doubtAtMs = null;
            failed = false;
          } else if (step.event.kind === "probe-sent" && !held) doubtAtMs ??= nowMs;
          else if (step.event.kind === "probe-failed" && !held && doubtAtMs !== null) failed ||= step.event.refused;
          check();
        }
        nowMs += restMs;
        check();
      }),
    );
  });

  it("J4: whatever came before, who sends probes when asked knows of a stop in time", () => {
    fc.assert(
      fc.property(history, (steps) => {
        const judge = new HealthJudge(0);
        let nowMs = 0;
        for (const step of steps) judge.observe(step.event, (nowMs += step.afterMs));
        judge.observe({ kind: "let-go" }, nowMs);
        judge.observe(life(), nowMs);
        const stoppedAtMs = nowMs;
        const probeAtMs = judge.probeAtMs();
        if (judge.verdict(nowMs).kind === "dead") return;
        expect(probeAtMs).not.toBeNull();
        judge.observe({ kind: "probe-sent" }, probeAtMs ?? 0);
        expect(judge.verdict(stoppedAtMs + limits.probeEveryMs + limits.silenceMsMax).kind).toBe("suspect");
        expect(judge.verdict(stoppedAtMs + limits.deadMs).kind).toBe("dead");
      }),
    );
  });
});
