import { SlimeError, seededRandom } from "@slime/core";
import { keptLog, virtualClock } from "@slime/core/testing";
import { beforeEach, describe, expect, it } from "vitest";
import { EngineSlot } from "./engine-slot.js";
import { FakeEngineActor } from "./testing/fake-engine-actor.js";

const clock = virtualClock();
let said: string[];

function slotOver(actors: readonly FakeEngineActor[]): EngineSlot {
  const seats = actors.map((actor, rank) => ({
    actor: actor.handle,
    place: async () => ({ address: `10.0.0.${rank}`, gpuUuids: [`GPU-${rank}`] }),
  }));
  return new EngineSlot(
    { id: "engine-0", role: "regular", seats, clock, random: seededRandom(1), log: keptLog().log },
    {
      up: ({ handle }) => said.push(`up ${handle.url}`),
      down: ({ handle }, reason) => said.push(`down ${handle.url}: ${reason}`),
      news: ({ phase, health }) => said.push(`${phase} ${health.kind}`),
    },
  );
}

beforeEach(() => {
  said = [];
});

describe("an engine over its lives", () => {
  it("L2: goes up, down with its actor, and up again in the next life", async () => {
    const actor = new FakeEngineActor("e");
    const slot = slotOver([actor]);
    await slot.start({});
    expect(slot.up?.handle.url).toBe("http://e.1");
    actor.die("killed");
    expect(slot.up).toBeNull();
    actor.comeBack();
    await clock.run(10);
    expect(said).toEqual(["up http://e.1", "down http://e.1: killed", "up http://e.2"]);
    expect(slot.up?.handle.url).toBe("http://e.2");
  });

  it("L1: one process's death ends the others, and the next life waits for all of them", async () => {
    const actors = [new FakeEngineActor("a"), new FakeEngineActor("b")];
    const slot = slotOver(actors);
    await slot.start({});
    expect(actors.map(({ plans }) => plans)).toEqual([
      [{ gpuUuids: ["GPU-0"], node: { rank: 0, count: 2, distInitAddress: "10.0.0.0:9" } }],
      [{ gpuUuids: ["GPU-1"], node: { rank: 1, count: 2, distInitAddress: "10.0.0.0:9" } }],
    ]);
    actors[1]?.die("killed");
    await clock.run(10);
    expect(said).toEqual(["up http://a.1", "down http://a.1: process 1 of 2: killed"]);
    expect(actors[0]?.calls).toContain("crash");
    actors[1]?.comeBack();
    await clock.run(10);
    expect(said).toHaveLength(2);
    actors[0]?.comeBack();
    await clock.run(10);
    expect(said.at(-1)).toBe("up http://a.2");
  });

  it("L3: a failed start is tried again, then left to the next life", async () => {
    const actor = new FakeEngineActor("e");
    const slot = slotOver([actor]);
    await slot.start({});
    actor.failures.set("start", new SlimeError("process.exited", "no", { what: "server", exitCode: 1, signal: null }));
    actor.die("killed");
    actor.comeBack();
    await clock.run(60_000);
    expect(actor.calls.filter((call) => call === "start")).toHaveLength(4);
    expect(actor.calls.filter((call) => call === "crash")).toHaveLength(1);
    actor.failures.clear();
    actor.comeBack();
    await clock.run(10);
    expect(said.at(-1)).toBe("up http://e.3");
  });

  it("the first start says what failed, and a mistake of the user's at once", async () => {
    const actor = new FakeEngineActor("e");
    const slot = slotOver([actor]);
    actor.failures.set("start", new SlimeError("config.invalid", "no sglang there", { issues: ["no sglang there"] }));
    await expect(slot.start({})).rejects.toThrow("no sglang there");
    expect(actor.calls).toEqual(["start"]);
  });

  it("a server that ends in every try of the first start is no lost trainer", async () => {
    const actor = new FakeEngineActor("e");
    const slot = slotOver([actor]);
    actor.failures.set("start", new SlimeError("process.exited", "no memory", { what: "server", exitCode: 1, signal: null }));
    const failure = slot.start({}).catch((error: unknown) => error);
    await clock.run(10_000);
    expect(await failure).toMatchObject({
      code: "engine.unavailable",
      message: "[engine.unavailable] engine-0 could not be started: no memory",
    });
    expect(actor.calls).toEqual(["start", "start", "start"]);
  });

  it("passes on what the engine says, in each of its lives", async () => {
    const actor = new FakeEngineActor("e");
    const slot = slotOver([actor]);
    await slot.start({});
    actor.say({ seq: 1, phase: "serving", health: { kind: "suspect", reason: "it hangs" } });
    await clock.run(10);
    actor.die("killed");
    actor.comeBack();
    await clock.run(2_000);
    actor.say({ seq: 1, phase: "loading", health: { kind: "healthy", reason: "" } });
    await clock.run(10);
    expect(said.filter((line) => !line.includes("http"))).toEqual(["serving suspect", "loading healthy"]);
  });

  it("calls of a life that is over are refused here", async () => {
    const actor = new FakeEngineActor("e");
    const slot = slotOver([actor]);
    await slot.start({});
    const engine = slot.up?.handle.engine;
    await engine?.pause("abort");
    actor.die("killed");
    await expect(engine?.pause("abort")).rejects.toMatchObject({ code: "engine.unavailable" });
    actor.comeBack();
    await expect(engine?.pause("abort")).rejects.toThrow("that life is over");
    expect(actor.calls.filter((call) => call === "pause")).toHaveLength(1);
  });
});
