import { virtualClock } from "@slime/core/testing";
import { detectPlatform, type ProcessActivity } from "@slime/platform";
import { describe, expect, it } from "vitest";
import { nodeLimits } from "./limits.js";
import { silenceWatch } from "./silence-watch.js";

const asleep: ProcessActivity = { cpuMs: 1_000, stopped: false, runnable: false };

/** One silent host, whose activity at each look is `at(ms since it fell silent)`. @returns when it was judged to hang, and why. */
async function judged(
  at: (ms: number) => ProcessActivity,
  forMs: number,
): Promise<{ readonly ms: number; readonly message: string } | null> {
  const clock = virtualClock();
  const from = clock.nowMs();
  let verdict: { ms: number; message: string } | null = null;
  const platform = {
    ...detectPlatform({}),
    processes: { ...detectPlatform({}).processes, activity: async () => at(clock.nowMs() - from) },
  };
  using watch = silenceWatch({ platform, clock, onHang: (_id, message) => (verdict = { ms: clock.nowMs() - from, message }) });
  watch.silent("proc_1", 7);
  await clock.run(forMs);
  return verdict;
}

describe("a host that does not answer", () => {
  it("hangs once it has wanted no processor time for long", async () => {
    const verdict = await judged(() => asleep, 120_000);
    expect(verdict?.message).toMatch(/used no processor time for 3\d s/);
    expect(verdict?.ms).toBeGreaterThanOrEqual(nodeLimits.hostIdleMsMax);
  });
  it("hangs at once when it is stopped", async () => {
    expect((await judged(() => ({ ...asleep, stopped: true }), 5_000))?.message).toContain("SIGSTOP");
  });
  it.each<[string, (ms: number) => ProcessActivity]>([
    ["computes", (ms) => ({ ...asleep, cpuMs: ms })],
    ["wants the processor and hardly gets it, with times in whole seconds", () => ({ ...asleep, runnable: true })],
    ["wants it now and then", (ms) => ({ ...asleep, runnable: Math.floor(ms / 1_000) % 20 === 0 })],
  ])("is left alone when it %s", async (_what, at) => expect(await judged(at, 300_000)).toBeNull());
});
