import { SlimeError } from "@slime/core";
import { largestLag } from "@slime/rl-config";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { alike } from "./generation.js";
import type { LoopConfig } from "./loop-state.js";
import type { RunSettings } from "./run-settings.js";
import type { RunSummary } from "./run-summary.js";
import { SimDisk, type SimOptions, type SimWorld, simAttempt, simAudit, simSettings } from "./testing/index.js";

const finished = (outcome: RunSummary | "dead"): RunSummary => {
  if (outcome === "dead") throw new Error("the driver died");
  return outcome;
};

/** Effects that name the loop's order, without op ids. */
const order = (world: SimWorld) =>
  world.effects.seen.flatMap((effect) => {
    const match = /^(rollout|train|commit|export|evaluate) (?:run\.e\d+\.)?(?:rollout\.|train\.|eval\.)?([^/ ]+)/.exec(effect);
    return match === null ? [] : [`${match[1]} ${match[2]}`];
  });

async function fails(settings: RunSettings, options: Partial<SimOptions>, during?: (world: SimWorld) => void): Promise<SlimeError> {
  const error: unknown = await simAttempt(new SimDisk(), settings, options, during).then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!SlimeError.isAny(error)) throw error ?? new Error("it did not fail");
  return error;
}

describe("a sync run", () => {
  it("generates, trains, saves, pushes and evaluates in upstream's order", async () => {
    const disk = new SimDisk();
    const { world, outcome } = await simAttempt(
      disk,
      simSettings({ rollouts: 2, saveInterval: 1, evalInterval: 1, evalBeforeTrain: true }),
    );
    expect(order(world)).toEqual([
      ...["export 1", "evaluate 0.held.1"],
      ...["rollout 0", "train 0", "commit step-0000001", "export 2", "evaluate 1.held.1"],
      ...["rollout 1", "train 1", "commit step-0000002", "export 3", "evaluate 2.held.1"],
    ]);
    expect(finished(outcome)).toMatchObject({ rollouts: 2, step: 2, lagMax: 0, overlapMs: 0 });
    expect(finished(outcome).evals.map(({ rolloutId }) => rolloutId)).toEqual([0, 1, 2]);
    expect(await simAudit(disk)).toEqual([]);
    expect(world.leaks).toEqual([]);
  });

  it("only evaluates when there is nothing to train", async () => {
    const { world } = await simAttempt(new SimDisk(), simSettings({ rollouts: 0, evalInterval: 1 }));
    expect(order(world)).toEqual(["export 1", "evaluate 0.held.1"]);
  });

  it("writes upstream's metric names", async () => {
    const { world } = await simAttempt(new SimDisk(), simSettings({ rollouts: 1, evalInterval: 1 }));
    const names = new Set(world.metrics.flatMap(({ values }) => Object.keys(values)));
    for (const name of [
      "train/loss",
      "train/grad_norm",
      "rollout/raw_reward",
      "rollout/response_len/mean",
      "rollout/truncated_ratio",
      "perf/rollout_time",
      "perf/train_wait_time",
      "perf/step_time",
      "perf/update_weights_time",
      "eval/held",
      "eval/held-truncated_ratio",
    ]) {
      expect(names).toContain(name);
    }
  });
});

describe("an async run", () => {
  it.each([
    [1, 1],
    [2, 1],
    [4, 2],
    [1, 3],
  ])("buffer %i, push interval %i: overlaps, and no sample is staler than the plan's lag", async (bufferSize, pushInterval) => {
    const disk = new SimDisk();
    const { world, outcome } = await simAttempt(
      disk,
      simSettings({ mode: "async", rollouts: 12, bufferSize, pushInterval, saveInterval: 5 }),
      { generateMs: 60, trainMs: 100 },
    );
    const summary = finished(outcome);
    expect(summary.lagMax).toBeLessThanOrEqual(largestLag({ bufferSize, pushInterval }));
    expect(summary.lagMax).toBeGreaterThan(0);
    expect(summary.overlapMs).toBeGreaterThan(0.8 * summary.generationMs);
    expect(await simAudit(disk)).toEqual([]);
    expect(world.leaks).toEqual([]);
  });

  it("takes less time than the same work in order", async () => {
    const [sync, async] = await Promise.all([
      simAttempt(new SimDisk(), simSettings({ rollouts: 10 })),
      simAttempt(new SimDisk(), simSettings({ mode: "async", rollouts: 10 })),
    ]);
    expect(finished(async.outcome).wallMs / finished(sync.outcome).wallMs).toBeLessThan(0.65);
  });

  it("never lags past --max-staleness under the policy wait", async () => {
    const { outcome } = await simAttempt(new SimDisk(), simSettings({ mode: "async", rollouts: 10, bufferSize: 4, waitForLag: 1 }), {
      generateMs: 20,
    });
    expect(finished(outcome)).toMatchObject({ rollouts: 10, lagMax: 1 });
  });

  it.each(["drop", "refill", "mask"] as const)("past --max-staleness: %s", async (policy) => {
    const disk = new SimDisk();
    const settings = simSettings({ mode: "async", rollouts: 8, bufferSize: 3 }, { staleness: { lagMax: 1, policy } });
    const { outcome } = await simAttempt(disk, settings, { generateMs: 20 });
    const summary = finished(outcome);
    expect(summary.rollouts).toBe(8);
    if (policy === "drop") expect(summary.step).toBeLessThan(8);
    else expect(summary.step).toBe(8);
    if (policy !== "mask") expect(summary.lagMax).toBeLessThanOrEqual(1);
    expect(await simAudit(disk)).toEqual([]);
  });
});

describe("what dies is replaced", () => {
  const modes: readonly LoopConfig["mode"][] = ["sync", "async"];

  it.each(modes)("%s: an engine dies in the middle of a rollout", async (mode) => {
    const disk = new SimDisk();
    const { world, outcome } = await simAttempt(
      disk,
      simSettings({ mode, rollouts: 4 }),
      { engines: 1 },
      (sim) => void sim.clock.after(130, () => sim.killEngine("engine-0", 300)),
    );
    expect(finished(outcome)).toMatchObject({ rollouts: 4, failedPrompts: 0 });
    expect(world.engines[0]?.lives).toBe(2);
    expect(world.lines.map((line) => line.event)).toEqual(expect.arrayContaining(["engine.died", "engine.started", "engine.caught_up"]));
    expect(world.leaks).toEqual([]);
    expect(await simAudit(disk)).toEqual([]);
  });

  it.each(modes)("%s: the trainer dies and the run goes back to its checkpoint", async (mode) => {
    const disk = new SimDisk();
    const { world, outcome } = await simAttempt(
      disk,
      simSettings({ mode, rollouts: 6, saveInterval: 2 }),
      {},
      (sim) => void sim.clock.after(mode === "sync" ? 750 : 450, () => sim.killTrainer()),
    );
    expect(finished(outcome)).toMatchObject({ rollouts: 6, step: 6, attempt: 1 });
    expect(world.trainerLives).toBe(2);
    expect(world.effects.seen).toContain("trainer start done/step-0000002");
    expect(await simAudit(disk)).toEqual([]);
  });

  it("gives up on a trainer that dies again and again", async () => {
    const error = await fails(simSettings({ rollouts: 3 }), {}, (sim) => {
      const again = () => {
        sim.killTrainer();
        sim.clock.after(50, again);
      };
      sim.clock.after(250, again);
    });
    expect(error.code).toBe("gang.rank_failed");
    expect(error.message).toContain("4 times without a checkpoint");
  });

  it("an engine with wrong weights is quarantined and gets no request", async () => {
    const { world, outcome } = await simAttempt(new SimDisk(), simSettings({ rollouts: 3 }), {}, (sim) => {
      const [engine] = sim.engines;
      if (engine !== undefined) engine.corrupt = true;
    });
    expect(finished(outcome).rollouts).toBe(3);
    expect(world.lines.find((line) => line.event === "push.quarantined")?.fields["reason"]).toContain("its checksum is 0000");
    expect(world.engines[0]?.lives).toBe(2);
    expect(world.leaks).toEqual([]);
  });
});

describe("what is wrong stops the run and says why", () => {
  it("failures that differ in numbers only are one line, with how many and the first three", () => {
    const failed = (at: number, message: string) => ({
      kind: "failed" as const,
      instanceId: `0:${at}`,
      groupIndex: at,
      code: "reward.failed",
      message,
      retryable: false,
    });
    const many = Array.from({ length: 64 }, (_, at) =>
      failed(at, `the reward of sample ${8 * at} of prompt 0:${at} failed: no such module`),
    );
    expect(alike([...many, failed(64, "it returned NaN")])).toEqual([
      {
        groups: 64,
        prompts: ["0:0", "0:1", "0:2"],
        code: "reward.failed",
        reason: "the reward of sample 0 of prompt 0:0 failed: no such module",
        retryable: false,
      },
      { groups: 1, prompts: ["0:64"], code: "reward.failed", reason: "it returned NaN", retryable: false },
    ]);
  });

  it("failed rewards past the bound", async () => {
    const error = await fails(simSettings({ rollouts: 20 }), { prompts: 100, failing: (id) => Number(id.split(":")[1]) % 3 === 0 });
    expect(error).toMatchObject({ code: "reward.failed" });
    expect(error.message).toMatch(/9 of \d+ prompts failed, more than --failed-prompts-max allows \(8\)/);
  });

  it("a few failed rewards drop their groups and others take their place", async () => {
    const disk = new SimDisk();
    const { world, outcome } = await simAttempt(disk, simSettings(), { prompts: 100, failing: (id) => id === "0:3" || id === "0:4" });
    expect(finished(outcome)).toMatchObject({ rollouts: 5, failedPrompts: 2 });
    const lines = world.lines.filter(({ event }) => event === "rollout.groups.failed");
    expect(lines.reduce((sum, { fields }) => sum + Number(fields["groups"]), 0)).toBe(2);
    expect(world.metrics.some(({ values }) => values["rollout/failed_prompts"] === 2)).toBe(true);
    expect(await simAudit(disk, { prompts: 100 })).toEqual([]);
  });

  it("a loss that is no number, before any checkpoint of it", async () => {
    const disk = new SimDisk();
    const error: unknown = await simAttempt(disk, simSettings({ saveInterval: 1 }), {}, (sim) => {
      sim.trainFault = () => Promise.reject(new SlimeError("trainer.numeric", "loss of step 1 is NaN", { what: "loss", step: 1 }));
    }).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "trainer.numeric" });
    expect(disk.checkpoints.size).toBe(0);
  });

  it("a silent trainer, named by the watchdog", async () => {
    const error = await fails(simSettings({}, { stallMs: 5_000 }), {}, (sim) => {
      sim.trainFault = () => new Promise(() => {});
    });
    expect(error).toMatchObject({ code: "stalled" });
    expect(error.message).toContain("train of rollout 0");
  });

  it("rewards without signal under the zero-spread filter", async () => {
    const base = simSettings();
    const error = await fails({ ...base, generation: { ...base.generation, dropZeroStd: true } }, { prompts: 1_000, reward: () => 1 });
    expect(error.message).toContain("zero_std_1.0");
  });
});

describe("what was stopped goes on", () => {
  it.each(["journal", "ledger"] as const)("after the disk was full for the %s", async (file) => {
    const disk = new SimDisk();
    disk[file].spaceBytes = 1_500;
    const error: unknown = await simAttempt(disk, simSettings()).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "disk.full" });
    disk[file].spaceBytes = Number.POSITIVE_INFINITY;
    const { outcome } = await simAttempt(disk, simSettings());
    expect(finished(outcome)).toMatchObject({ rollouts: 5, attempt: file === "journal" ? expect.any(Number) : 2 });
    expect(await simAudit(disk)).toEqual([]);
  });

  it.each(["sync", "async"] as const)("%s: after a signal", async (mode) => {
    const disk = new SimDisk();
    const stop = new AbortController();
    const settings = simSettings({ mode, rollouts: 6 });
    const reason = new SlimeError("call.cancelled", "stopped by SIGTERM", { what: "run" });
    const error: unknown = await simAttempt(
      disk,
      settings,
      {},
      (sim) => void sim.clock.after(620, () => stop.abort(reason)),
      stop.signal,
    ).catch((thrown: unknown) => thrown);
    expect(error).toBe(reason);
    const { outcome, world } = await simAttempt(disk, settings);
    expect(world.said[0]).toMatch(/^attempt 2: (resumes at rollout \d from .*step-000000\d|no checkpoint was written yet: starts anew)$/);
    expect(finished(outcome)).toMatchObject({ rollouts: 6, attempt: 2 });
    expect(await simAudit(disk)).toEqual([]);
  });
});

describe("the driver dies at every single effect, and the same command resumes", () => {
  const runs: readonly [string, number, Partial<LoopConfig>, Partial<RunSettings>, Partial<SimOptions>?][] = [
    ["sync", 1, { mode: "sync", rollouts: 2, saveInterval: 1 }, {}],
    ["sync, rare checkpoints", 5, { mode: "sync", rollouts: 4, saveInterval: 3 }, {}],
    ["async", 1, { mode: "async", rollouts: 3, saveInterval: 1, bufferSize: 2 }, {}],
    [
      "async, stale groups dropped",
      5,
      { mode: "async", rollouts: 4, saveInterval: 2, bufferSize: 2 },
      { staleness: { lagMax: 1, policy: "drop" } },
    ],
    [
      "async, prompts slow to arrive while checkpoints are made",
      7,
      { mode: "async", rollouts: 5, saveInterval: 1, bufferSize: 2 },
      {},
      { takeMs: 150, generateMs: 20 },
    ],
  ];

  // The longer runs take every fifth effect: the two short ones meet each kind of effect at every place.
  it.each(runs)("%s", async (_, stride, loop, more, options = {}) => {
    const settings = simSettings(loop, more);
    const whole = await simAttempt(new SimDisk(), settings, options);
    const effects = whole.world.effects.seen.length;
    for (let dieAt = 1; dieAt <= effects; dieAt += stride) {
      const disk = new SimDisk();
      const first = await simAttempt(disk, settings, { ...options, dieAt });
      const where = first.world.effects.seen.at(-1);
      expect(first.outcome, where).toBe("dead");
      disk.crash(dieAt % 3 === 0 ? 7 : 0);
      const { outcome } = await simAttempt(disk, settings, options);
      expect(finished(outcome).rollouts, `died at ${where}`).toBe(settings.loop.rollouts);
      expect(await simAudit(disk), `died at ${where}`).toEqual([]);
    }
  });

  it("again and again, with engines and trainer dying too (property)", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 120 }), { minLength: 1, maxLength: 4 }),
        fc.constantFrom<LoopConfig["mode"]>("sync", "async"),
        fc.integer({ min: 50, max: 900 }),
        fc.integer({ min: 50, max: 900 }),
        fc.integer({ min: 0, max: 40 }),
        async (deaths, mode, engineAt, trainerAt, survivors) => {
          const disk = new SimDisk();
          const settings = simSettings({ mode, rollouts: 5, saveInterval: 2, bufferSize: 2 });
          for (const dieAt of [...deaths, Number.POSITIVE_INFINITY]) {
            const { outcome } = await simAttempt(disk, settings, { dieAt }, (sim) => {
              sim.clock.after(engineAt, () => sim.killEngine("engine-0", 80));
              sim.clock.after(trainerAt, () => sim.trainerAlive && sim.killTrainer());
            });
            if (outcome !== "dead") break;
            disk.crash(survivors);
          }
          expect(await simAudit(disk)).toEqual([]);
          expect([...disk.checkpoints.keys()].sort().at(-1)).toBe("step-0000005");
        },
      ),
      { numRuns: 20, seed: 20_261_122 },
    );
  });
});
