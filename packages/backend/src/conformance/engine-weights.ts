import { SlimeError } from "@slime/core";
import { expect, it } from "vitest";
import type { GenerateResult, PauseMode, WeightUpdate } from "../engine.js";
import { near, outcome } from "./engine-generation.js";
import { type EngineProbe, failureOf } from "./engine-subject.js";

const modes: readonly PauseMode[] = ["abort", "retract", "in_place"];
const surviving: readonly PauseMode[] = ["retract", "in_place"];

/** What a weight push leans on: pauses, flushes, loads, updates and versions. */
export function weightCases(probe: () => EngineProbe): void {
  it("E18: pause abort ends what runs with what it has; then a flush succeeds", async () => {
    const flight = probe().fly();
    await flight.begun;
    await probe().engine.pause("abort");
    const ended = await flight.done;
    expect(ended.finishReason.type).toBe("abort");
    expect(ended.outputIds.length).toBeGreaterThan(0);
    expect(ended.outputIds.length).toBeLessThan(probe().subject.longTokens);
    expect(ended.outputLogProbs).toHaveLength(ended.outputIds.length);
    await probe().engine.flush();
  });

  it.each(surviving)("E19: pause %s holds what runs, which then ends as if undisturbed", async (mode) => {
    const undisturbed = await probe().fly().done;
    const flight = probe().fly();
    await flight.begun;
    await probe().engine.pause(mode);
    expect(await probe().progress()).toBe(0);
    expect(flight.settled()).toBe(false);
    await probe().engine.resume();
    const survived = await flight.done;
    expect(survived.finishReason).toEqual({ type: "length", length: probe().subject.longTokens });
    expect(survived.outputIds).toEqual(undisturbed.outputIds);
    near(survived.outputLogProbs, undisturbed.outputLogProbs, probe().subject.can.logProbDifferenceMax);
  });

  it.each(modes)("E20: pause %s holds newcomers until it goes on; saying either twice changes nothing", async (mode) => {
    for (const _ of [1, 2]) await probe().engine.pause(mode);
    const newcomer = probe().fly();
    expect(await probe().progress()).toBe(0);
    expect(newcomer.settled()).toBe(false);
    for (const _ of [1, 2]) await probe().engine.resume();
    expect((await newcomer.done).outputIds).toHaveLength(probe().subject.longTokens);
  });

  it("E21: a flush is refused while requests are held, and granted when idle", async () => {
    const flight = probe().fly();
    await flight.begun;
    await probe().engine.pause("in_place");
    expect((await probe().get("/flush_cache")).status).toBe(400);
    await probe().engine.resume();
    await flight.done;
    await probe().engine.flush();
  });

  it("E22: load and health answer while it works; load counts what runs", async () => {
    const before = await probe().engine.load();
    expect(before).toMatchObject({ running: 0, waiting: 0 });
    const flights = [probe().fly(), probe().fly()];
    await Promise.all(flights.map(({ begun }) => begun));
    // A server may tell of its last look at itself, some steps ago.
    await probe().until("load counts both and what they made", async () => {
      const during = await probe().engine.load();
      return during.running + during.waiting === 2 && during.tokensTotal > before.tokensTotal;
    });
    expect(flights.map(({ settled }) => settled())).toEqual([false, false]);
    await probe().engine.health(20_000);
    await Promise.all(flights.map(({ done }) => done));
    await probe().idle();
  });

  it("E23: info names the server, its sizes and the version that replies carry", async () => {
    const info = await probe().engine.info();
    const { weightVersion } = await probe().generate();
    expect(info).toMatchObject({ url: probe().engine.url, weightVersion });
    // A stock server does not say its vocabulary.
    expect([0, probe().subject.vocabulary]).toContain(info.vocabularySize);
    expect(info.server).not.toBe("");
  });

  it("E24: an update replaces the weights and their version, in receipt, info, replies and spans; the same weights give the same bits", async (context) => {
    const update = updates(probe());
    if (update === null) return context.skip("no weights to push");
    const [first, second] = [probe().nextVersion(), probe().nextVersion()];
    const source = await update(first);
    const under = await probe().generate();
    expect(under.weightVersion).toBe(String(first));
    expect((await probe().engine.info()).weightVersion).toBe(String(first));
    expectSpans(probe(), under, [first]);
    await update(second);
    const changed = await probe().generate();
    expect(changed.weightVersion).toBe(String(second));
    expect(changed.outputLogProbs).not.toEqual(under.outputLogProbs);
    const again = probe().nextVersion();
    const receipt = await probe().engine.updateWeights({ version: again, source });
    expect(receipt.version).toBe(String(again));
    expect(outcome(await probe().generate())).toEqual(outcome(under));
  });

  it("E25: weights that are missing or not what was announced are refused, and the old ones stay", async (context) => {
    const update = updates(probe());
    if (update === null) return context.skip("no weights to push");
    const version = probe().nextVersion();
    const source = await update(version);
    const before = await probe().generate();
    for (const broken of brokenSources(source)) {
      const failure = await failureOf(probe().engine.updateWeights({ version: probe().nextVersion(), source: broken }));
      expect(SlimeError.is(failure, "engine.refused") || SlimeError.is(failure, "weights.mismatch"), String(failure)).toBe(true);
      expect((await probe().engine.info()).weightVersion).toBe(String(version));
      expect(outcome(await probe().generate())).toEqual(outcome(before));
    }
  });

  it.for(surviving)(
    "E26: a request that an update crosses in pause %s goes on under the new weights, and says from where",
    async (mode, context) => {
      const update = updates(probe());
      if (update === null) return context.skip("no weights to push");
      const { longTokens, can } = probe().subject;
      const [before, after] = [probe().nextVersion(), probe().nextVersion()];
      await update(before);
      const undisturbed = await probe().fly().done;
      const flight = probe().fly();
      await flight.begun;
      await probe().engine.pause(mode);
      const stale = can.keepsPrefixes && (mode === "in_place" || !(await flushed(probe())));
      await update(after);
      await probe().engine.resume();
      const crossed = await flight.done;
      expect(crossed).toMatchObject({ weightVersion: String(after), finishReason: { type: "length", length: longTokens } });
      expectSpans(probe(), crossed, [before, after]);
      if (!can.spans) return;
      const cut = crossed.weightSpans[0]?.to ?? 0;
      expect(outcome(crossed).ids.slice(0, cut)).toEqual(undisturbed.outputIds.slice(0, cut));
      near(crossed.outputLogProbs.slice(0, cut), undisturbed.outputLogProbs.slice(0, cut), can.logProbDifferenceMax);
      // Frozen requests keep the cache of the old weights; those sent back to the queue are read anew by the new ones.
      if (mode !== "retract" || stale) return;
      const scored = await probe().generate(
        { temperature: 1, max_new_tokens: 0 },
        { input_ids: [...probe().prompt(), ...crossed.outputIds], logprob_start_len: 0 },
      );
      near(scored.inputLogProbs.slice(3 + cut), crossed.outputLogProbs.slice(cut), can.logProbDifferenceMax);
    },
  );

  it("E27: an update without a pause waits for what runs, which ends under the old weights", async (context) => {
    const { weights } = probe().subject;
    const update = updates(probe());
    if (update === null || weights === null) return context.skip("no weights to push");
    const [before, after] = [probe().nextVersion(), probe().nextVersion()];
    await update(before);
    const source = await weights(after);
    const flight = probe().fly();
    await flight.begun;
    await probe().engine.updateWeights({ version: after, source });
    const ended = await flight.done;
    expect(ended.weightVersion).toBe(String(before));
    expectSpans(probe(), ended, [before]);
    expect((await probe().generate()).weightVersion).toBe(String(after));
  });

  it("E28: when the server dies, calls under way and new ones fail as unavailable", async (context) => {
    const { kill } = probe().subject;
    if (kill === null) return context.skip("this server is not ours to kill");
    const flight = probe().fly();
    await flight.begun;
    await kill();
    expect(await failureOf(flight.done)).toMatchObject({ code: "engine.unavailable" });
    expect(await failureOf(probe().generate())).toMatchObject({ code: "engine.unavailable" });
    expect(await failureOf(probe().engine.health(5_000))).toMatchObject({ code: "engine.unavailable" });
    expect(await failureOf(probe().engine.load())).toMatchObject({ code: "engine.unavailable" });
  });
}

/** Tries to, while requests are held: some servers refuse. */
async function flushed({ engine }: EngineProbe): Promise<boolean> {
  try {
    await engine.flush();
    return true;
  } catch (error) {
    if (SlimeError.is(error, "engine.refused")) return false;
    throw error;
  }
}

/** Loads the weights of a version and checks the receipt; null where the subject has none. */
function updates(probe: EngineProbe): ((version: number) => Promise<WeightUpdate["source"]>) | null {
  const { weights } = probe.subject;
  if (weights === null) return null;
  return async (version) => {
    const source = await weights(version);
    const receipt = await probe.engine.updateWeights({ version, source });
    expect(receipt.version).toBe(String(version));
    if (receipt.checksum !== null && source.kind === "shared-memory") expect(receipt.checksum).toBe(source.checksum);
    return source;
  };
}

function brokenSources(source: WeightUpdate["source"]): readonly WeightUpdate["source"][] {
  const missing = { ...source, path: `${source.path}-is-not-there` };
  if (source.kind === "directory") return [missing];
  const turned = [...source.checksum].map((digit) => (digit === "0" ? "1" : "0")).join("");
  return [missing, { ...source, checksum: turned }, { ...source, bytes: source.bytes - 4 }];
}

/** Spans cover the output in order without a gap, whoever made them. */
function expectSpans(probe: EngineProbe, { weightSpans, outputIds }: GenerateResult, versions: readonly number[]): void {
  weightSpans.forEach((span, i) => {
    expect(span.from).toBe(weightSpans[i - 1]?.to ?? 0);
    expect(span.to).toBeGreaterThan(span.from);
    expect(versions).toContain(span.version);
  });
  expect(weightSpans.at(-1)?.to).toBe(outputIds.length);
  if (!probe.subject.can.spans) return;
  expect(weightSpans.map(({ version, mixed }) => ({ version, mixed }))).toEqual(versions.map((version) => ({ version, mixed: false })));
}
