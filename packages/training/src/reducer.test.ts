import { largestLag } from "@slime/rl-config";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { initialState, type LoopCommand, type LoopConfig, type LoopEvent, type LoopState } from "./loop-state.js";
import { periodic, reduce } from "./reducer.js";

const base: LoopConfig = {
  mode: "sync",
  rollouts: 4,
  rolloutsPerEpoch: null,
  saveInterval: null,
  evalInterval: null,
  evalBeforeTrain: true,
  bufferSize: 1,
  pushInterval: 1,
  waitForLag: null,
  trainerRestartsMax: 2,
};

/** Answers a command as the world would. */
function answer(command: LoopCommand): LoopEvent | null {
  switch (command.kind) {
    case "start":
      return { kind: "started", era: command.era };
    case "generate":
      return { kind: "generated", era: command.era, rolloutId: command.rolloutId };
    case "lane": {
      const { era, job } = command;
      if (job.kind === "train") return { kind: "trained", era, rolloutId: job.rolloutId, step: job.rolloutId + 1 };
      if (job.kind === "save") return { kind: "saved", era, checkpoint: { name: `step-${job.rolloutId + 1}`, trained: job.rolloutId + 1 } };
      if (job.kind === "push") return { kind: "pushed", era, version: job.version };
      return { kind: "evaluated", era, rolloutId: job.rolloutId };
    }
    default:
      return null;
  }
}

interface Played {
  readonly state: LoopState;
  readonly commands: readonly LoopCommand[];
  readonly events: readonly LoopEvent[];
  /** Of each rollout: the version when its generation began and the one it trained at. */
  readonly lags: readonly number[];
}

/** Plays a run; `pick` chooses which of the commands in flight ends next, `lose` when the trainer dies. */
function play(config: LoopConfig, pick: (count: number) => number, lose: (turn: number) => boolean = () => false): Played {
  let state = initialState;
  const commands: LoopCommand[] = [];
  const events: LoopEvent[] = [];
  let open: LoopCommand[] = [];
  const began = new Map<number, number>();
  const lags: number[] = [];
  const feed = (event: LoopEvent) => {
    events.push(event);
    if (event.kind === "trained") lags.push(state.version - (began.get(event.rolloutId) ?? 0));
    const next = reduce(config, state, event);
    state = next.state;
    for (const command of next.commands) {
      commands.push(command);
      if (command.kind === "generate") began.set(command.rolloutId, state.version);
      open.push(command);
    }
  };
  feed({ kind: "attempt.started", checkpoint: null, versionMax: 0 });
  for (let turn = 0; open.length > 0 && turn < 1_000; turn++) {
    if (state.phase === "running" && lose(turn)) {
      open = [];
      feed({ kind: "trainer.lost", era: state.era, reason: "killed" });
      continue;
    }
    const [command] = open.splice(pick(open.length), 1);
    const event = command === undefined ? null : answer(command);
    if (event !== null) feed(event);
  }
  return { state, commands, events, lags };
}

const configs = fc.record({
  mode: fc.constantFrom("sync" as const, "async" as const),
  rollouts: fc.integer({ min: 0, max: 9 }),
  rolloutsPerEpoch: fc.constantFrom(null, 3),
  saveInterval: fc.constantFrom(null, 1, 2, 4),
  evalInterval: fc.constantFrom(null, 1, 3),
  evalBeforeTrain: fc.boolean(),
  bufferSize: fc.integer({ min: 1, max: 4 }),
  pushInterval: fc.integer({ min: 1, max: 4 }),
  waitForLag: fc.constantFrom(null, 0, 1, 2),
  trainerRestartsMax: fc.constant(50),
});
/** Upstream's sync driver pushes after every rollout. */
const asRun = (config: LoopConfig): LoopConfig => (config.mode === "sync" ? { ...config, pushInterval: 1, waitForLag: null } : config);
const picks = fc.infiniteStream(fc.nat());

describe("the reducer", () => {
  it("always comes to an end, trains each rollout once in order, and saves the last", () => {
    fc.assert(
      fc.property(configs, picks, (config, stream) => {
        const { state, commands } = play(asRun(config), (count) => (stream.next().value ?? 0) % count);
        expect(state.phase).toBe("finished");
        const trained = commands.flatMap((command) =>
          command.kind === "lane" && command.job.kind === "train" ? [command.job.rolloutId] : [],
        );
        expect(trained).toEqual(Array.from({ length: config.rollouts }, (_, i) => i));
        if (config.rollouts > 0) expect(state.checkpoint?.trained).toBe(config.rollouts);
      }),
    );
  });

  it("the largest lag is the plan's, and `wait` keeps it lower", () => {
    fc.assert(
      fc.property(configs, picks, (config, stream) => {
        const run = asRun(config);
        const { lags } = play(run, (count) => (stream.next().value ?? 0) % count);
        const planned = run.mode === "sync" ? 0 : largestLag(run);
        expect(Math.max(0, ...lags)).toBeLessThanOrEqual(run.waitForLag === null ? planned : Math.min(planned, run.waitForLag));
      }),
    );
  });

  it("J2: the journal's events give the same state again; L3, L4 hold over rollbacks", () => {
    fc.assert(
      fc.property(configs, picks, fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 3 }), (config, stream, deaths) => {
        const run = asRun(config);
        const { state, events } = play(
          run,
          (count) => (stream.next().value ?? 0) % count,
          (turn) => deaths.includes(turn),
        );
        expect(state.phase).toBe("finished");
        let again = initialState;
        let versionMax = 0;
        for (const event of events) {
          again = reduce(run, again, event).state;
          expect(again.versionMax).toBeGreaterThanOrEqual(versionMax);
          versionMax = again.versionMax;
          expect(reduce(run, again, { kind: "generated", era: again.era - 1, rolloutId: 0 })).toEqual({ state: again, commands: [] });
        }
        expect(again).toEqual(state);
      }),
    );
  });

  it("goes back to the checkpoint when the trainer is lost, and gives up past its budget", () => {
    const { state, commands } = play(
      { ...base, saveInterval: 2 },
      () => 0,
      (turn) => turn === 14,
    );
    const starts = commands.flatMap((command) => (command.kind === "start" ? [command.checkpoint?.trained ?? 0] : []));
    expect(starts).toEqual([0, 2]);
    expect(state).toMatchObject({ phase: "finished", era: 2 });
    const lost = play(
      base,
      () => 0,
      () => true,
    );
    expect(lost.state).toMatchObject({ phase: "failed", failure: { message: expect.stringContaining("3 times without a checkpoint") } });
  });

  it.each<[number | null, number | null, number, boolean]>([
    [null, null, 1, false],
    [2, null, 0, false],
    [2, null, 1, true],
    [2, 3, 2, true],
    [7, null, 9, true],
  ])("interval %s, per epoch %s, rollout %i of 10: %s", (interval, rolloutsPerEpoch, rolloutId, due) => {
    expect(periodic({ ...base, rollouts: 10, rolloutsPerEpoch }, interval, rolloutId)).toBe(due);
  });
});
