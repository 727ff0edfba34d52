import { causeChain, SlimeError } from "@slime/core";
import { expect, it } from "vitest";
import { failureOf } from "./engine-subject.js";
import type { PushFault, Release } from "./push-stage.js";
import { expectServes, plain, push, pushMs, request, type StartWeightSync, score, type WeightSyncSubject } from "./weight-sync-subject.js";

const late = ["answers late", "breaks late"] as const;
const faults: readonly PushFault[] = ["refuse", "die", "corrupt", "lie", "stale", "drift"];

/** Engines, trainer and fence that fail in the middle of a push. */
export function pushFaultCases(start: StartWeightSync): void {
  it.each(faults)(
    "P6: an engine that goes wrong (%s) is quarantined: its fence stays closed, it is restarted; the others open",
    async (fault) => {
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
    },
  );

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

  it.each(late)(
    "P10: an engine that says nothing is given up at the deadline; what it says after its restart (%s) changes nothing",
    async (how) => {
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
    },
  );

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
    else {
      const received = () => stage.events.filter(({ step }) => step === "received").length > 2;
      void stage.until(received).then(() => {
        stage.fenceAway = true;
      });
    }
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

  it("P15: an engine that is known to have died in the middle is not restarted once more", async () => {
    await using subject = await start(plain);
    const { stage } = subject;
    await push(subject, 1);
    stage.plan("a", "hold");
    const release = stage.releaser("a");
    const pushing = push(subject, 2);
    const receives = () => stage.steps("a").filter((step) => step === "receive").length;
    await stage.until(() => receives() === 2);
    subject.forget(stage.url("a"));
    release("breaks late");
    expect((await pushing).engines.map(({ state }) => state)).toEqual(["quarantined", "open"]);
    expect([stage.opened("a"), stage.restarts]).toEqual([null, []]);
    stage.put("a", await subject.startEngine("a"));
    await subject.sync.catchUp({ url: stage.url("a"), version: 2, timeoutMs: pushMs });
    await expectServes(subject, "a", 2);
  });
}

/** Version 1 is pushed, then version 2, of which `a` says nothing until it is given up. */
async function giveUp(subject: WeightSyncSubject): Promise<(how: Release) => void> {
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
}
