import { describe, expect, it } from "vitest";
import type { GenerateResult, PauseMode } from "../engine.js";
import type { PushStep } from "./push-stage.js";
import { pushFaultCases } from "./weight-sync-faults.js";
import { expectServes, plain, push, pushMs, request, type StartWeightSync, text, type WeightSyncSubject } from "./weight-sync-subject.js";

const modes: readonly PauseMode[] = ["abort", "retract", "in_place"];

/** What every weight push does: W1 an engine serves only while its fence is open; W2 it opens only at the version committed last. */
export function weightSyncConformance(name: string, start: StartWeightSync): void {
  describe(`weight sync: ${name}`, () => {
    pushCases(start);
    pushFaultCases(start);
  });
}

function pushCases(start: StartWeightSync): void {
  it.each(modes)("P1: in mode %s a push opens every engine at its version, with the trainer's weights", async (pauseMode) => {
    await using subject = await start({ pauseMode, canary: true });
    await subject.train();
    const report = await push(subject, 1);
    expect(report).toMatchObject({
      version: 1,
      engines: ["a", "b"].map((id) => ({ url: subject.stage.url(id), state: "open", reason: null })),
    });
    expect(report.bytes).toBeGreaterThan(0);
    for (const id of ["a", "b"]) await expectServes(subject, id, 1);
    expect(subject.sync.lastExport()?.bytes).toBe(report.bytes);
    expect(subject.stage.restarts).toEqual([]);
  });

  it.each(modes)("P2 (W1): in mode %s an engine is fenced before it is paused and opened after it goes on", async (pauseMode) => {
    await using subject = await start({ pauseMode, canary: true });
    await push(subject, 1);
    const flushed: readonly PushStep[] = pauseMode === "abort" ? ["flush"] : [];
    for (const id of ["a", "b"])
      expect(subject.stage.steps(id)).toEqual(["closing", "fenced", "pause", ...flushed, "receive", "received", "resume", "open"]);
  });

  it("P3 (W1, W2): while an engine receives, nothing passes its fence; what waited is answered by the new weights", async () => {
    await using subject = await start(plain);
    const { stage } = subject;
    await push(subject, 1);
    stage.plan("a", "hold");
    const release = stage.releaser("a");
    await subject.train();
    const pushing = push(subject, 2);
    await stage.until(() => stage.steps("a").filter((step) => step === "receive").length === 2 && stage.opened("b") === 2);
    expect(stage.opened("a")).toBeNull();
    let passed = false;
    const waiting = stage.through("a", request("waits")).then((result) => {
      passed = true;
      return result;
    });
    expect((await stage.through("b", request("passes"))).weightVersion).toBe("2");
    expect(passed).toBe(false);
    release("goes on");
    expect((await pushing).engines.map(({ state }) => state)).toEqual(["open", "open"]);
    expect((await waiting).weightVersion).toBe("2");
  });

  it("P4 (W2): versions follow one another; the same version again changes nothing", async () => {
    await using subject = await start(plain);
    for (const version of [1, 2, 3]) {
      await subject.train();
      await push(subject, version);
      for (const id of ["a", "b"]) await expectServes(subject, id, version);
    }
    const exported = subject.sync.lastExport();
    expect((await push(subject, 3)).engines.map(({ state }) => state)).toEqual(["open", "open"]);
    expect(subject.sync.lastExport()).toEqual(exported);
    for (const id of ["a", "b"]) await expectServes(subject, id, 3);
  });

  it("P5: pushes asked for together happen one after the other", async () => {
    await using subject = await start(plain);
    const { stage } = subject;
    const close = stage.holdFence("a");
    const both = Promise.all([push(subject, 1), push(subject, 2)]);
    await stage.until(() => stage.opened("b") === 1);
    // Longer than a push takes that waits for nothing.
    for (let i = 0; i < 3; i++) await subject.trainerLogProbs(text);
    expect(stage.steps("b").filter((step) => step === "closing")).toHaveLength(1);
    close();
    expect((await both).map(({ version }) => version)).toEqual([1, 2]);
    for (const id of ["a", "b"]) await expectServes(subject, id, 2);
  });

  it("P9: catch-up brings a restarted engine to the version pushed last, costs nothing when it is there, and fails for one that is gone", async () => {
    await using subject = await start(plain);
    const { stage } = subject;
    await subject.train();
    await push(subject, 3);
    const url = stage.url("b");
    subject.forget(url);
    stage.put("b", await subject.startEngine("b"));
    expect(stage.opened("b")).toBeNull();
    await subject.sync.catchUp({ url: stage.url("b"), version: 1, timeoutMs: pushMs });
    await expectServes(subject, "b", 3);
    expect((await subject.sync.catchUp({ url: stage.url("b"), version: 3, timeoutMs: pushMs })).bytes).toBe(0);
    expect(stage.steps("a").filter((step) => step === "receive")).toHaveLength(1);
    await expect(subject.sync.catchUp({ url: "http://127.0.0.1:9", version: 3, timeoutMs: pushMs })).rejects.toMatchObject({
      code: "engine.unavailable",
    });
  });

  it("P13: in mode abort a push ends what runs, with what it has", async () => {
    await using subject = await start({ pauseMode: "abort", canary: true });
    await push(subject, 1);
    const ended = await crossing(subject);
    expect(ended.finishReason.type).toBe("abort");
    expect(ended.weightSpans.map(({ version }) => version)).toEqual([1]);
  });

  it.each(["retract", "in_place"] as const)(
    "P14: in mode %s what runs crosses the push and says which tokens came from which weights",
    async (pauseMode) => {
      await using subject = await start({ pauseMode, canary: true });
      await push(subject, 1);
      await subject.train();
      const crossed = await crossing(subject);
      expect(crossed).toMatchObject({ weightVersion: "2", finishReason: { type: "length", length: subject.longTokens } });
      expect(crossed.weightSpans.map(({ version, mixed }) => ({ version, mixed }))).toEqual(
        [1, 2].map((version) => ({ version, mixed: false })),
      );
      expect(crossed.weightSpans.at(-1)?.to).toBe(subject.longTokens);
    },
  );
}

/** What becomes of a long request at `a` that is under way when version 2 is pushed: it began while the fence was closing. */
async function crossing(subject: WeightSyncSubject): Promise<GenerateResult> {
  const { stage, longTokens } = subject;
  const close = stage.holdFence("a");
  const closings = () => stage.steps("a").filter((step) => step === "closing").length;
  const before = closings();
  const pushing = push(subject, 2);
  await stage.until(() => closings() > before);
  const { sampling_params, ...rest } = request("flight");
  let begin: () => void = () => {};
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const done = stage
    .bare("a")
    .generate(
      { ...rest, sampling_params: { ...sampling_params, max_new_tokens: longTokens } },
      { timeoutMs: 30_000, onTokens: () => begin() },
    );
  await Promise.race([begun, done]);
  close();
  await pushing;
  return done;
}
