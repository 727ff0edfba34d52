import { SlimeError } from "@slime/core";
import { describe, expect, it } from "vitest";
import { SimDisk, SimWorld, simDefaults } from "./testing/index.js";
import { type WeightPush, weightPush } from "./weight-push.js";

async function world(
  engines = 2,
): Promise<{ readonly sim: SimWorld; readonly push: WeightPush; readonly go: <T>(work: Promise<T>) => Promise<T> }> {
  const sim = new SimWorld(new SimDisk(), { ...simDefaults, engines });
  const ports = await sim.ports();
  const go = async <T>(work: Promise<T>): Promise<T> => (await sim.until(work)) as T;
  await go(
    Promise.all([
      ports.fleet.start({ opId: "f", timeoutMs: 1_000 }),
      ports.trainer.start({ opId: "t", timeoutMs: 1_000 }, { checkpoint: null }),
    ]),
  );
  return { sim, go, push: weightPush({ ...ports, pauseMode: "abort", temperature: 1, canaryTolerance: 0.01 }) };
}

const at = (version: number) => ({ version, opId: `run.e1.push.${version}`, timeoutMs: 10_000 });

describe("a weight push", () => {
  it("W5: each engine gets the calls of the transaction in order", async () => {
    const { sim, push, go } = await world(1);
    const report = await go(push.push(at(1)));
    expect(sim.effects.seen.slice(sim.effects.seen.indexOf("export 1"))).toEqual([
      "export 1",
      "probe",
      "fence http://engine-0",
      "engine-0 pause",
      "engine-0 flush",
      "engine-0 receive 1",
      "engine-0 resume",
      "engine-0 canary",
      "open http://engine-0",
    ]);
    expect(report).toMatchObject({ version: 1, bytes: 4, engines: [{ url: "http://engine-0", state: "open" }] });
    expect(push.stateOf("http://engine-0")).toBe("open");
    expect(sim.leaks).toEqual([]);
  });

  it("W3: a wrong checksum quarantines its engine, the others open", async () => {
    const { sim, push, go } = await world();
    if (sim.engines[1] !== undefined) sim.engines[1].corrupt = true;
    const report = await go(push.push(at(1)));
    expect(report.engines.map(({ state }) => state)).toEqual(["open", "quarantined"]);
    expect(sim.engines.map(({ open }) => open)).toEqual([true, false]);
    expect(sim.effects.seen).toContain("restart engine-1");
  });

  it("a canary that differs is a mismatch", async () => {
    const { sim, push, go } = await world(1);
    const ports = await sim.ports();
    const wrong = weightPush({
      ...ports,
      trainer: { ...ports.trainer, probe: async () => Float32Array.of(-1, -9) },
      pauseMode: "abort",
      temperature: 1,
      canaryTolerance: 0.01,
    });
    const error: unknown = await go(wrong.push(at(1)).catch((reason: unknown) => reason));
    expect(SlimeError.is(error, "weights.push") && error.message).toContain(
      "the canary's log-probs differ from the trainer's by 3.5 in the mean",
    );
    expect(push.version()).toBe(0);
  });

  it("fails when it reaches no engine, and the same version may be tried again", async () => {
    const { sim, push, go } = await world(1);
    sim.killEngine("engine-0", 100);
    await expect(go(push.push(at(1)))).rejects.toMatchObject({ code: "weights.push" });
    await go(sim.clock.run(200));
    expect(await go(push.push(at(1)))).toMatchObject({ engines: [{ state: "open" }] });
    expect(sim.effects.seen.filter((effect) => effect === "export 1")).toHaveLength(1);
  });

  it("an engine that hangs is given up at the deadline and never opened by a late answer", async () => {
    const { sim, push, go } = await world();
    const ports = await sim.ports();
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const fleet = {
      ...ports.fleet,
      list: () =>
        ports.fleet
          .list()
          .map((handle) => (handle.id === "engine-1" ? { ...handle, engine: { ...handle.engine, flush: () => held } } : handle)),
    };
    const slow = weightPush({ ...ports, fleet, pauseMode: "abort", temperature: 1, canaryTolerance: 0.01 });
    const report = await go(slow.push({ ...at(1), timeoutMs: 500 }));
    expect(report.engines.map(({ state }) => state)).toEqual(["open", "quarantined"]);
    release();
    await go(sim.clock.run(200));
    expect(sim.engines[1]?.open).toBe(false);
    expect(push.version()).toBe(0);
  });

  it("W8: a deadline that passes while the fence opens leaves it shut on the engine that was given up", async () => {
    const { sim, go } = await world();
    const ports = await sim.ports();
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const asked: string[] = [];
    const fence = {
      close: async (url: string) => {
        asked.push(`close ${url}`);
        await ports.fleet.fence.close(url);
      },
      open: async (url: string, version: number) => {
        if (url === "http://engine-1") await held;
        asked.push(`open ${url}`);
        await ports.fleet.fence.open(url, version);
      },
    };
    // The engine stays what it is, so that only its fence keeps requests out.
    const fleet = { ...ports.fleet, fence, restart: async () => {} };
    const slow = weightPush({ ...ports, fleet, pauseMode: "abort", temperature: 1, canaryTolerance: 0.01 });
    const report = await go(slow.push({ ...at(1), timeoutMs: 500 }));
    expect(report.engines.map(({ state }) => state)).toEqual(["open", "quarantined"]);
    release();
    await go(sim.clock.run(200));
    expect(asked.filter((each) => each.endsWith("engine-1"))).toEqual([
      "close http://engine-1",
      "open http://engine-1",
      "close http://engine-1",
    ]);
    expect(sim.engines.map(({ open }) => open)).toEqual([true, false]);
    expect(slow.stateOf("http://engine-1")).toBe("quarantined");
    // Its next transfer waits for what the last one left behind.
    await go(slow.catchUp({ url: "http://engine-1", version: 1, timeoutMs: 500 }));
    expect(sim.engines.map(({ open }) => open)).toEqual([true, true]);
  });

  it("catches one restarted engine up without touching the others, and only once", async () => {
    const { sim, push, go } = await world();
    await go(push.push(at(3)));
    sim.killEngine("engine-1", 10);
    push.forget("http://engine-1");
    await go(sim.clock.run(50));
    const before = sim.effects.seen.length;
    await go(push.catchUp({ url: "http://engine-1", version: 3, timeoutMs: 1_000 }));
    await go(push.catchUp({ url: "http://engine-1", version: 3, timeoutMs: 1_000 }));
    const seen = sim.effects.seen.slice(before);
    expect(seen.some((effect) => effect.includes("engine-0"))).toBe(false);
    expect(seen.filter((effect) => effect === "engine-1 receive 3")).toHaveLength(1);
    expect(sim.engines.map(({ open, version }) => [open, version])).toEqual([
      [true, 3],
      [true, 3],
    ]);
  });

  it("reopens what was open for a router that forgot", async () => {
    const { sim, push, go } = await world();
    await go(push.push(at(2)));
    for (const engine of sim.engines) engine.open = false;
    await go(push.reopen());
    expect(sim.engines.every(({ open }) => open)).toBe(true);
  });
});
