import { virtualClock } from "@slime/core/testing";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ProbeOutcome } from "./http-probe.js";
import { type WatchHealthParts, watchHealth } from "./watch-health.js";

/** An engine that answers probes a second late while it runs. */
function engine(parts: Partial<WatchHealthParts> = {}) {
  const clock = virtualClock();
  const state = { stopped: false, probes: 0, tokens: 0 };
  let exit: (end: { readonly reason: string }) => void = () => {};
  const verdicts: string[] = [];
  const waiting = new Set<() => void>();
  const watch = watchHealth({
    clock,
    probe: (signal) =>
      new Promise<ProbeOutcome>((resolve) => {
        state.probes++;
        signal.addEventListener("abort", () => resolve({ kind: "silent" }), { once: true });
        const answer = () => (state.stopped ? void waiting.add(answer) : resolve({ kind: "answered", status: 200 }));
        clock.after(1_000, answer);
      }),
    exited: new Promise((resolve) => (exit = resolve)),
    onVerdict: (verdict) => void verdicts.push(`${Math.round(clock.nowMs())} ${verdict.kind}`),
    ...parts,
  });
  const goOn = () => {
    state.stopped = false;
    for (const answer of waiting) answer();
    waiting.clear();
  };
  return { clock, state, exit: (reason: string) => exit({ reason }), verdicts, watch, goOn };
}

describe("the health watch", () => {
  it("probes an idle engine every few seconds and finds nothing", async () => {
    const { clock, state, verdicts } = engine();
    await clock.run(60_000);
    expect(verdicts).toEqual([]);
    expect(state.probes).toBe(15);
  });

  it("tells of a stopped scheduler within 10 s, and of its death by 30 s (J4, J5)", async () => {
    const { clock, state, verdicts } = engine();
    await clock.run(20_500);
    state.stopped = true;
    await clock.run(10_000);
    expect(verdicts).toEqual(["28000 suspect"]);
    await clock.run(60_000);
    expect(verdicts).toEqual(["28000 suspect", "50000 dead"]);
    expect(clock.pending()).toBeLessThanOrEqual(1);
  });

  it("takes a stop's end for what it is (J3)", async () => {
    const { clock, state, verdicts, goOn } = engine();
    await clock.run(1_000);
    state.stopped = true;
    await clock.run(15_000);
    goOn();
    await clock.run(10_000);
    expect(verdicts).toEqual(["8000 suspect", "16000 healthy"]);
  });

  it("asks nothing while it is held, and lets overlapping holds end each for itself (J2)", async () => {
    const { clock, state, verdicts, watch } = engine();
    await clock.run(3_500); // a probe is under way
    const pause = watch.hold("pause");
    const update = watch.hold("update");
    state.stopped = true;
    await clock.run(120_000);
    pause[Symbol.dispose]();
    await clock.run(120_000);
    expect([state.probes, verdicts]).toEqual([1, []]);
    state.stopped = false;
    update[Symbol.dispose]();
    update[Symbol.dispose]();
    await clock.run(3_000);
    expect(state.probes).toBe(2);
  });

  it("counts tokens while a probe is wanting: an engine that generates is alive", async () => {
    let tokens = 0;
    const { clock, state, verdicts } = engine({ tokens: async () => (tokens += 10) });
    state.stopped = true;
    await clock.run(120_000);
    expect(verdicts).toEqual([]);
  });

  it("knows of a stop within 10 s also where tokens moved until then, whenever it comes (J4)", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 20_000 }), fc.boolean(), async (stopAtMs, answers) => {
        let stopped = false;
        const { clock, state, verdicts } = engine({ tokens: async () => (stopped ? 7 : clock.nowMs()) });
        state.stopped = !answers; // probes that wait behind long prompts, say
        await clock.run(stopAtMs);
        stopped = state.stopped = true;
        await clock.run(10_000);
        expect(verdicts.at(-1)).toMatch(/suspect$/);
      }),
      { numRuns: 60 },
    );
  });

  it("is not taken in by loads that stand still", async () => {
    const { clock, state, verdicts } = engine({ tokens: async () => 7 });
    state.stopped = true;
    await clock.run(40_000);
    expect(verdicts).toEqual(["8000 suspect", "30000 dead"]);
  });

  it("believes what its callers see", async () => {
    const { clock, state, verdicts, watch } = engine();
    state.stopped = true;
    for (let second = 0; second < 60; second++) {
      watch.saw("request");
      await clock.run(1_000);
    }
    expect(verdicts).toEqual([]);
    watch.saw("request-broken");
    await clock.run(5_100);
    expect(verdicts).toEqual(["65000 suspect"]);
  });

  it("knows an exit at once (J1), and nothing after it is closed", async () => {
    const first = engine();
    first.watch.hold("update");
    first.exit("exit code 1");
    await first.clock.run(1);
    expect(first.verdicts).toEqual(["0 dead"]);
    expect(first.watch.verdict()).toEqual({ kind: "dead", reason: "exit code 1" });
    const second = engine();
    second.watch[Symbol.dispose]();
    second.exit("killed");
    await second.clock.run(60_000);
    expect(second.verdicts).toEqual([]);
    expect(second.state.probes).toBe(0);
  });
});
