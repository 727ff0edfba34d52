import { causeChain, SlimeError } from "@slime/core";
import { describe, expect, it } from "vitest";
import type { Engine, GenerateResult, PauseMode } from "../engine.js";
import type { WeightSync } from "../weight-sync.js";
import { near } from "./engine-generation.js";
import { failureOf } from "./engine-subject.js";
import type { PushFault, PushStage, PushStep, Release } from "./push-stage.js";

/** A push with its trainer and two engines, `a` and `b`, which are on stage with weights of version 0 and behind closed fences. */
export interface WeightSyncSubject extends AsyncDisposable {
  readonly sync: WeightSync;
  readonly stage: PushStage;
  /** Says that what is known of this url is void: its engine died. */
  readonly forget: (url: string) => void;
  /** Lets the sync's own time pass, and with it its deadlines. */
  readonly pass: (ms: number) => void;
  /** New tokens of a request that must still run when a push arrives. */
  readonly longTokens: number;
  readonly logProbDifferenceMax: number;
  /** Changes the trainer's weights. */
  readonly train: () => Promise<void>;
  /** The trainer's log-probs of tokens 1… at temperature 1, under the weights it has now. */
  readonly trainerLogProbs: (tokens: readonly number[]) => Promise<ArrayLike<number>>;
  /** A rank dies with half of the next export written. */
  readonly breakExport: () => Promise<void>;
  /** A new trainer in the place of a dead one, with the weights that it had. */
  readonly reviveTrainer: () => Promise<void>;
  /** A new engine in the place of one that died, at the same url where it can be, with weights of version 0. */
  readonly startEngine: (id: string) => Promise<Engine>;
}

export interface WeightSyncOptions {
  readonly pauseMode: PauseMode;
  readonly canary: boolean;
}

const pushMs = 20_000;
const text = [3, 7, 5, 9, 4, 8];
const late = ["answers late", "breaks late"] as const;
const modes: readonly PauseMode[] = ["abort", "retract", "in_place"];
const plain: WeightSyncOptions = { pauseMode: "retract", canary: true };

/** What every weight push does: W1 an engine serves only while its fence is open; W2 it opens only at the version committed last. */
export function weightSyncConformance(name: string, start: (options: WeightSyncOptions) => Promise<WeightSyncSubject>): void {
  let ops = 0;
  const push = ({ sync }: WeightSyncSubject, version: number) => sync.push({ version, opId: `push-${ops++}`, timeoutMs: pushMs });

  /** Version 1 is pushed, then version 2, of which `a` says nothing until it is given up. */
  const giveUp = async (subject: WeightSyncSubject): Promise<(how: Release) => void> => {
    const { stage } = subject;
    await push(subject, 1);
    stage.plan("a", "hold");
    const release = stage.releaser("a");
    await subject.train();
    const pushing = push(subject, 2);
    await stage.until(() => stage.opened("b") === 2);
    await new Promise<void>((resolve) => setImmediate(resolve));
    subject.pass(pushMs);
    const { engines } = await pushing;
    expect(engines.map(({ state }) => state)).toEqual(["quarantined", "open"]);
    return release;
  };

  /** What becomes of a long request at `a` that is under way when version 2 is pushed: it began while the fence was closing. */
  const crossing = async (subject: WeightSyncSubject): Promise<GenerateResult> => {
    const { stage, longTokens } = subject;
    const close = stage.holdFence("a");
    const closings = () => stage.steps("a").filter((step) => step === "closing").length;
    const before = closings();
    const pushing = push(subject, 2);
    await stage.until(() => closings() > before);
    const { sampling_params, ...rest } = request("flight");
    let begin: () => void = () => {};
    const begun = new Promise<void>((resolve) => (begin = resolve));
    const done = stage.bare("a").generate({ ...rest, sampling_params: { ...sampling_params, max_new_tokens: longTokens } }, { timeoutMs: 30_000, onTokens: () => begin() });
    await Promise.race([begun, done]);
    close();
    await pushing;
    return done;
  };

  describe(`weight sync: ${name}`, () => {
    it.each(modes)("P1: in mode %s a push opens every engine at its version, with the trainer's weights", async (pauseMode) => {
      await using subject = await start({ pauseMode, canary: true });
      await subject.train();
      const report = await push(subject, 1);
      expect(report).toMatchObject({ version: 1, engines: ["a", "b"].map((id) => ({ url: subject.stage.url(id), state: "open", reason: null })) });
      expect(report.bytes).toBeGreaterThan(0);
      for (const id of ["a", "b"]) await expectServes(subject, id, 1);
      expect(subject.sync.lastExport()?.bytes).toBe(report.bytes);
      expect(subject.stage.restarts).toEqual([]);
    });

    it.each(modes)("P2 (W1): in mode %s an engine is fenced before it is paused and opened after it goes on", async (pauseMode) => {
      await using subject = await start({ pauseMode, canary: true });
      await push(subject, 1);
      const flushed: readonly PushStep[] = pauseMode === "abort" ? ["flush"] : [];
      for (const id of ["a", "b"]) expect(subject.stage.steps(id)).toEqual(["closing", "fenced", "pause", ...flushed, "receive", "received", "resume", "open"]);
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
      const waiting = stage.through("a", request("waits")).then((result) => ((passed = true), result));
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
      const both = await Promise.all([push(subject, 1), push(subject, 2)]);
      expect(both.map(({ version }) => version)).toEqual([1, 2]);
      const { events } = subject.stage;
      expect(events.map(({ step }) => step).lastIndexOf("open")).toBe(events.length - 1);
      expect(events.slice(0, events.length / 2).filter(({ step }) => step === "open")).toHaveLength(2);
      for (const id of ["a", "b"]) await expectServes(subject, id, 2);
    });

    const faults: readonly PushFault[] = ["refuse", "die", "corrupt", "lie", "stale", "drift"];
    it.each(faults)("P6: an engine that goes wrong (%s) is quarantined: its fence stays closed, it is restarted; the others open", async (fault) => {
      await using subject = await start(plain);
      const { stage } = subject;
      await push(subject, 1);
      await subject.train();
      stage.plan("a", fault);
      const { engines } = await push(subject, 2);
      expect(engines.map(({ state }) => state)).toEqual(["quarantined", "open"]);
      expect(engines[0]?.reason).not.toBe("");
      expect([stage.opened("a"), stage.restarts]).toEqual([null, ["a"]]);
      await expectServes(subject, "b", 2);

      stage.put("a", await subject.startEngine("a"));
      const caughtUp = await subject.sync.catchUp({ url: stage.url("a"), version: 2, timeoutMs: pushMs });
      expect(caughtUp.engines).toEqual([{ url: stage.url("a"), state: "open", reason: null }]);
      await expectServes(subject, "a", 2);
    });

    it("P7: a push that reaches no engine fails, and opens none", async () => {
      await using subject = await start(plain);
      const { stage } = subject;
      await push(subject, 1);
      for (const id of ["a", "b"]) stage.plan(id, "refuse");
      const failure = await failureOf(push(subject, 2));
      expect(SlimeError.is(failure, "weights.push") && failure.details.version).toBe(2);
      expect(["a", "b"].map((id) => stage.opened(id))).toEqual([null, null]);
      expect([...stage.restarts].sort()).toEqual(["a", "b"]);
    });

    it("P8: a trainer that dies half-way through its export leaves the engines as they were; a new one pushes the same version", async () => {
      await using subject = await start(plain);
      const { stage } = subject;
      await subject.train();
      await push(subject, 1);
      const before = await score(stage.bare("a"));
      const [exported, steps] = [subject.sync.lastExport(), stage.events.length];
      await subject.train();
      await subject.breakExport();
      const failure = await failureOf(push(subject, 2));
      expect(SlimeError.isAny(failure), String(failure)).toBe(true);
      expect(causeChain(failure).join("\n")).toContain("[process.exited]");
      expect([stage.opened("a"), stage.opened("b"), stage.restarts, stage.events.length]).toEqual([1, 1, [], steps]);
      expect(subject.sync.lastExport()).toEqual(exported);
      expect((await stage.through("a", request("still"))).weightVersion).toBe("1");
      expect(await score(stage.bare("a"))).toEqual(before);

      await subject.reviveTrainer();
      await push(subject, 2);
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
      await expect(subject.sync.catchUp({ url: "http://127.0.0.1:9", version: 3, timeoutMs: pushMs })).rejects.toMatchObject({ code: "engine.unavailable" });
    });

    it.each(late)("P10: an engine that says nothing is given up at the deadline; what it says after its restart (%s) changes nothing", async (how) => {
      await using subject = await start(plain);
      const { stage } = subject;
      const release = await giveUp(subject);
      expect([stage.opened("a"), stage.opened("b"), stage.restarts]).toEqual([null, 2, ["a"]]);
      stage.put("a", await subject.startEngine("a"));
      await subject.sync.catchUp({ url: stage.url("a"), version: 2, timeoutMs: pushMs });
      const before = stage.steps("a").length;
      release(how);
      await stage.until(() => stage.steps("a").length > before);
      await expectServes(subject, "a", 2);
      expect([stage.steps("a").slice(before + 1), stage.restarts]).toEqual([[], ["a"]]);
      expect((await push(subject, 3)).engines.map(({ state }) => state)).toEqual(["open", "open"]);
    });

    it.each(late)("P11: what a given-up engine says late (%s) does not pass for the new engine's own", async (how) => {
      await using subject = await start(plain);
      const { stage } = subject;
      const releaseOld = await giveUp(subject);
      stage.put("a", await subject.startEngine("a"));
      stage.plan("a", "hold");
      const releaseNew = stage.releaser("a");
      const received = () => stage.steps("a").filter((step) => step === "receive").length;
      const receives = received();
      const catching = subject.sync.catchUp({ url: stage.url("a"), version: 2, timeoutMs: pushMs });
      await stage.until(() => received() > receives);
      const before = stage.steps("a").length;
      releaseOld(how);
      await stage.until(() => stage.steps("a").length > before);
      await score(stage.bare("b"));
      expect([stage.opened("a"), stage.steps("a").slice(before + 1), stage.restarts]).toEqual([null, [], ["a"]]);
      releaseNew("goes on");
      expect((await catching).engines.map(({ state }) => state)).toEqual(["open"]);
      await expectServes(subject, "a", 2);
    });

    it.each(["closes", "opens"])("P12: a fence that cannot be reached for a moment as it %s costs no engine", async (moment) => {
      await using subject = await start(plain);
      const { stage } = subject;
      await push(subject, 1);
      const away = () => ["a", "b"].map((id) => stage.steps(id).filter((step) => step === "away").length);
      if (moment === "closes") stage.fenceAway = true;
      else void stage.until(() => stage.events.filter(({ step }) => step === "received").length > 2 && (stage.fenceAway = true));
      await subject.train();
      const pushing = push(subject, 2);
      await stage.until(() => away().every((times) => times === 1));
      await new Promise<void>((resolve) => setImmediate(resolve));
      stage.fenceAway = false;
      subject.pass(pushMs / 2);
      expect((await pushing).engines.map(({ state }) => state)).toEqual(["open", "open"]);
      for (const id of ["a", "b"]) await expectServes(subject, id, 2);
      expect(stage.restarts).toEqual([]);
    });

    it("P13: in mode abort a push ends what runs, with what it has", async () => {
      await using subject = await start({ pauseMode: "abort", canary: true });
      await push(subject, 1);
      const ended = await crossing(subject);
      expect(ended.finishReason.type).toBe("abort");
      expect(ended.weightSpans.map(({ version }) => version)).toEqual([1]);
    });

    it.each(["retract", "in_place"] as const)("P14: in mode %s what runs crosses the push and says which tokens came from which weights", async (pauseMode) => {
      await using subject = await start({ pauseMode, canary: true });
      await push(subject, 1);
      await subject.train();
      const crossed = await crossing(subject);
      expect(crossed).toMatchObject({ weightVersion: "2", finishReason: { type: "length", length: subject.longTokens } });
      expect(crossed.weightSpans.map(({ version, mixed }) => ({ version, mixed }))).toEqual([1, 2].map((version) => ({ version, mixed: false })));
      expect(crossed.weightSpans.at(-1)?.to).toBe(subject.longTokens);
    });
  });
}

function request(rid: string, input_ids: readonly number[] = text) {
  return { rid, input_ids, sampling_params: { temperature: 0, top_p: 1, top_k: -1, max_new_tokens: 2, ignore_eos: true }, return_logprob: true };
}

async function score(engine: Engine): Promise<readonly (number | null)[]> {
  const sampling_params = { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: 1, ignore_eos: true };
  return (await engine.generate({ ...request("score"), sampling_params, logprob_start_len: 0 }, { timeoutMs: 30_000 })).inputLogProbs.slice(1);
}

/** It is open at this version, says so, and its log-probs are the trainer's. */
async function expectServes(subject: WeightSyncSubject, id: string, version: number): Promise<void> {
  const { stage } = subject;
  expect(stage.opened(id), `fence of ${id}`).toBe(version);
  expect((await stage.bare(id).info()).weightVersion).toBe(String(version));
  expect((await stage.through(id, request(`serves-${id}`))).weightVersion).toBe(String(version));
  near(await score(stage.bare(id)), Array.from(await subject.trainerLogProbs(text)), subject.logProbDifferenceMax);
}
