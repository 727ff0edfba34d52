import { ProcessId, seededRandom } from "@slime/core";
import type { HowItDied } from "@slime/platform";
import type { ActorSpec, NodeUp, StartActor, StartJob } from "@slime/rpc/control";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { gpuShares, sumShares } from "./bundles.js";
import type { StepContext } from "./draft.js";
import { nodeLimits } from "./limits.js";
import { emptyNode, type NodeEffect, type NodeEvent, type NodeState } from "./node-state.js";
import { inventory } from "./reports.js";
import { step } from "./step.js";

const spec = (actorId: string, change: Partial<ActorSpec> = {}): ActorSpec => ({
  actorId,
  jobId: "job_00000000000000aa",
  className: "Counter",
  host: "node",
  module: "/m.js",
  exportName: "Counter",
  arguments: Buffer.alloc(0),
  resources: {},
  placementGroupId: "",
  bundleIndex: -1,
  env: {},
  cwd: "",
  gpuVisibility: "assigned",
  concurrency: 1,
  concurrencyGroups: {},
  restartsMax: 0,
  restartWindowMs: 0,
  lifetime: "job",
  name: "counter",
  pendingCallsMax: 100,
  creationTimeoutMs: 0,
  nodeLabels: {},
  python: "",
  nodeId: "",
  ...change,
});
const startOf = (actorId: string, incarnation = 1, change: Partial<ActorSpec> = {}, gpuIndices: number[] = []): StartActor => ({
  spec: spec(actorId, change),
  incarnation,
  gpuIndices,
});
const jobStart = (jobId: string, attempt = 1): StartJob => ({
  attempt,
  spec: { jobId, submissionId: "s", entrypoint: "true", env: {}, cwd: "", metadata: {}, resources: {}, attemptsMax: 1 },
});
const gpus = [0, 1].map((index) => ({ index, uuid: `GPU-${index}`, name: "x", memoryMib: 1, virtual: false }));
const died = (change: Partial<HowItDied> = {}): HowItDied => ({
  exitCode: null,
  signal: "SIGKILL",
  oom: false,
  message: "killed by SIGKILL",
  stderrTail: ["last words"],
  ...change,
});

/** A machine with a memory of what it asked for. */
function machine(poolSize = 0) {
  const random = seededRandom(1);
  const context: StepContext = {
    nodeId: "node_0000000000000001",
    gpus,
    poolSize,
    newProcessId: () => ProcessId.create(random),
    wallMs: () => 5,
  };
  let state: NodeState = emptyNode;
  const effects: NodeEffect[] = [];
  const send = (event: NodeEvent): readonly NodeEffect[] => {
    const next = step(state, event, context);
    state = next.state;
    effects.push(...next.effects);
    return next.effects;
  };
  const register = (processId: string) => send({ kind: "host_registered", processId, pid: 100, language: "node", actor: null });
  /** Starts an actor up to ALIVE; returns its process. */
  const alive = (actorId: string, incarnation = 1, change: Partial<ActorSpec> = {}, gpuIndices: number[] = []) => {
    const launch = send({ kind: "start_actor", start: startOf(actorId, incarnation, change, gpuIndices) }).find(
      (effect) => effect.kind === "launch_host",
    );
    const processId = launch?.kind === "launch_host" ? launch.processId : "";
    register(processId);
    send({ kind: "host_alive", processId, incarnation, pid: 100, socket: "/s" });
    return processId;
  };
  return { send, register, alive, effects, state: () => state };
}
const kinds = (effects: readonly NodeEffect[]) => effects.map((effect) => (effect.kind === "report" ? reportKind(effect.up) : effect.kind));
function reportKind(up: NodeUp): string {
  const { message } = up;
  return message?.$case === "actor"
    ? `actor ${message.value.state?.$case}`
    : message?.$case === "job"
      ? `job ${message.value.state?.$case}`
      : `${message?.$case}`;
}
const goneOf = (effects: readonly NodeEffect[]) =>
  effects.flatMap((effect) =>
    effect.kind === "report" && effect.up.message?.$case === "actor" && effect.up.message.value.state?.$case === "gone"
      ? [effect.up.message.value.state.value]
      : [],
  )[0];

describe("an actor's life", () => {
  it("goes from a started process to ALIVE to gone, with its last words", () => {
    const m = machine();
    expect(kinds(m.send({ kind: "start_actor", start: startOf("a") }))).toEqual(["launch_host"]);
    const processId = m.state().actors.get("a")?.life?.processId ?? "";
    expect(kinds(m.register(processId))).toEqual(["assign", "actor starting"]);
    expect(kinds(m.send({ kind: "host_alive", processId, incarnation: 1, pid: 7, socket: "/s" }))).toEqual(["actor alive"]);
    const effects = m.send({ kind: "ended", processId, pid: 7, death: died() });
    expect(kinds(effects)).toEqual(["release_ports", "actor gone"]);
    expect(goneOf(effects)?.death).toMatchObject({
      reason: "WORKER_DIED",
      pid: 7,
      signal: "SIGKILL",
      stderrTail: ["last words"],
      message: "killed by SIGKILL; its last words: last words",
    });
  });
  it("tells a head that was away what it does, in its own last words", () => {
    const m = machine();
    const processId = m.alive("a");
    m.alive("b");
    expect(kinds(m.send({ kind: "host_phase", processId, phase: "serving", waitingFor: "" }))).toEqual(["actor phase"]);
    const [again, ...more] = m.send({ kind: "welcomed" });
    expect(more).toEqual([]);
    expect(again).toMatchObject({
      kind: "report",
      up: { message: { value: { actorId: "a", state: { $case: "phase", value: { phase: "serving", waitingFor: "" } } } } },
    });
  });
  it("takes a ready host and fills the pool again", () => {
    const m = machine(1);
    m.send({ kind: "timer", timer: { of: "pool" } });
    const [ready] = m.state().hosts.keys();
    m.register(ready ?? "");
    expect(kinds(m.send({ kind: "start_actor", start: startOf("a") }))).toEqual(["assign", "actor starting", "launch_host"]);
    expect(kinds(m.send({ kind: "start_actor", start: startOf("b", 1, { env: { NODE_OPTIONS: "--x" } }) }))).toEqual(["launch_host"]);
  });
  it("answers a repeated start with what it knows, also after the end (N2)", () => {
    const m = machine();
    const processId = m.alive("a");
    expect(kinds(m.send({ kind: "start_actor", start: startOf("a") }))).toEqual(["actor alive"]);
    m.send({ kind: "ended", processId, pid: 7, death: died() });
    expect(kinds(m.send({ kind: "start_actor", start: startOf("a") }))).toEqual(["actor gone"]);
    expect(kinds(m.send({ kind: "stop_actor", actorId: "a", incarnation: 1, graceMs: 0, reason: "KILLED" }))).toEqual(["actor gone"]);
  });
  it("starts a newer life only after the older one's end (N1)", () => {
    const m = machine();
    const processId = m.alive("a");
    expect(kinds(m.send({ kind: "start_actor", start: startOf("a", 2) }))).toEqual(["end"]);
    expect(kinds(m.send({ kind: "start_actor", start: startOf("a", 1) }))).toEqual([]);
    expect(kinds(m.send({ kind: "ended", processId, pid: 7, death: died() }))).toEqual(["release_ports", "actor gone", "launch_host"]);
  });
  it("says that a constructor failed, not that a process died", () => {
    const m = machine();
    const processId = m.alive("a");
    m.send({ kind: "host_failed", processId, failure: Buffer.from("{}") });
    const gone = goneOf(m.send({ kind: "ended", processId, pid: 7, death: died({ exitCode: 1, signal: null, message: "exit code 1" }) }));
    expect(gone?.death?.reason).toBe("CREATION_FAILED");
    expect(gone?.creationFailure.toString()).toBe("{}");
  });
  it.each([
    ["orphaned", "ORPHANED"],
    ["self", "KILLED"],
  ] as const)("keeps the reason of a host that left by itself: %s", (reason, wanted) => {
    const m = machine();
    const processId = m.alive("a");
    m.send({ kind: "host_exit", processId, reason });
    expect(goneOf(m.send({ kind: "ended", processId, pid: 7, death: died() }))?.death?.reason).toBe(wanted);
  });
  it("ends one that is not ready in time, and one that hangs", () => {
    const m = machine();
    expect(kinds(m.send({ kind: "start_actor", start: startOf("a", 1, { creationTimeoutMs: 50 }) }))).toEqual(["launch_host", "timer"]);
    const processId = m.state().actors.get("a")?.life?.processId ?? "";
    expect(kinds(m.send({ kind: "timer", timer: { of: "creation", processId } }))).toEqual(["end"]);
    const other = m.alive("b");
    m.send({ kind: "host_hangs", processId: other, message: "silent for 10 s" });
    expect(goneOf(m.send({ kind: "ended", processId: other, pid: 7, death: died() }))?.death?.message).toMatch(/^silent for 10 s; killed/);
  });
  it("adopts what an earlier daemon left, and ends what does not belong", () => {
    const m = machine();
    m.send({ kind: "adopted_actor", processId: "p", pid: 9, language: "node", start: startOf("a", 3) });
    expect(inventory(m.state()).actors).toMatchObject([{ incarnation: 3, pid: 9, socket: "" }]);
    const actor = { actorId: "a", incarnation: 3, jobId: "j", state: "alive", socketPath: "/s" } as const;
    expect(kinds(m.send({ kind: "host_registered", processId: "p", pid: 9, language: "node", actor }))).toEqual(["actor alive"]);
    expect(
      kinds(m.send({ kind: "host_registered", processId: "q", pid: 10, language: "node", actor: { ...actor, incarnation: 2 } })),
    ).toEqual(["end"]);
  });
  it("rests the pool when its hosts keep dying", () => {
    const m = machine(1);
    m.send({ kind: "timer", timer: { of: "pool" } });
    for (let round = 0; round < nodeLimits.poolDeathsMax; round++) {
      const [processId] = m.state().hosts.keys();
      if (processId !== undefined) m.send({ kind: "ended", processId, pid: 1, death: died() });
    }
    expect(m.state().hosts.size).toBe(0);
    expect(kinds(m.effects).filter((kind) => kind === "timer")).toEqual(["timer"]);
    m.send({ kind: "timer", timer: { of: "pool" } });
    expect(m.state().hosts.size).toBe(1);
  });
});

describe("jobs", () => {
  it("run once an attempt, are stopped, and are forgotten", () => {
    const m = machine();
    expect(kinds(m.send({ kind: "start_job", start: jobStart("j") }))).toEqual(["launch_driver"]);
    const processId = m.state().jobs.get("j")?.processId ?? "";
    expect(kinds(m.send({ kind: "launched", processId, pid: 5, logPath: "/l" }))).toEqual(["job running"]);
    expect(kinds(m.send({ kind: "start_job", start: jobStart("j") }))).toEqual(["job running"]);
    expect(kinds(m.send({ kind: "stop_job", jobId: "j", graceMs: 10 }))).toEqual(["end"]);
    expect(kinds(m.send({ kind: "ended", processId, pid: 5, death: died() }))).toEqual(["job ended"]);
    expect(inventory(m.state()).endedJobs).toMatchObject([{ jobId: "j", state: { value: { stopped: true, signal: "SIGKILL" } } }]);
    expect(kinds(m.send({ kind: "start_job", start: jobStart("j") }))).toEqual(["job ended"]);
    expect(kinds(m.send({ kind: "forget_job", jobId: "j" }))).toEqual(["drop_record", "free_job"]);
    expect(inventory(m.state()).endedJobs).toEqual([]);
    expect(kinds(m.send({ kind: "stop_job", jobId: "j", graceMs: 0 }))).toEqual(["job ended"]);
  });
  it("report a driver that could not start", () => {
    const m = machine();
    m.send({ kind: "start_job", start: jobStart("j") });
    expect(
      kinds(m.send({ kind: "launch_failed", processId: m.state().jobs.get("j")?.processId ?? "", message: "no such directory" })),
    ).toEqual(["job ended"]);
  });
});

describe("what waits for an end", () => {
  it("a start waits for a life that is going on its GPU, and is not refused (N8)", () => {
    const m = machine();
    const old = m.alive("a", 1, { resources: { GPU: 10_000 } }, [0]);
    m.send({ kind: "stop_actor", actorId: "a", incarnation: 1, graceMs: 100, reason: "KILLED" });
    expect(kinds(m.send({ kind: "start_actor", start: startOf("b", 1, { resources: { GPU: 10_000 } }, [0]) }))).toEqual([]);
    expect(kinds(m.send({ kind: "start_actor", start: startOf("c", 1, { resources: { GPU: 10_000 } }, [1]) }))).toEqual(["launch_host"]);
    expect(kinds(m.send({ kind: "ended", processId: old, pid: 7, death: died() }))).toEqual(["release_ports", "actor gone", "launch_host"]);
    expect(m.state().actors.get("b")).toMatchObject({ next: null, life: { phase: "starting" } });
  });
  it("a start that waits can be stopped", () => {
    const m = machine();
    const old = m.alive("a", 1, { resources: { GPU: 10_000 } }, [0]);
    m.send({ kind: "stop_actor", actorId: "a", incarnation: 1, graceMs: 100, reason: "KILLED" });
    m.send({ kind: "start_actor", start: startOf("b", 1, { resources: { GPU: 10_000 } }, [0]) });
    expect(goneOf(m.send({ kind: "stop_actor", actorId: "b", incarnation: 1, graceMs: 0, reason: "KILLED" }))?.death?.message).toBe(
      "stopped before it began",
    );
    m.send({ kind: "ended", processId: old, pid: 7, death: died() });
    expect(m.state().actors.size).toBe(0);
  });
  it("released bundles stay taken for as long as an actor is in them (B3)", () => {
    const m = machine();
    const bundles = [{ index: 0, resources: { GPU: 10_000 }, nodeId: "n", gpuIndices: [0], address: "", gpuUuids: [] }];
    const prepare = (id: string): NodeEvent => ({ kind: "prepare", id, generation: 1, bundles, ttlMs: 100 });
    const refused = (effects: readonly NodeEffect[]) =>
      effects.some(
        (effect) => effect.kind === "report" && effect.up.message?.$case === "bundles" && effect.up.message.value.failure.length > 0,
      );
    m.send(prepare("pg"));
    m.send({ kind: "commit", id: "pg", generation: 1 });
    const old = m.alive("a", 1, { resources: { GPU: 10_000 }, placementGroupId: "pg", bundleIndex: 0 }, [0]);
    m.send({ kind: "release", id: "pg", generation: 1 });
    expect(refused(m.send(prepare("other")))).toBe(true);
    expect(refused(m.send(prepare("pg")))).toBe(false);
    m.send({ kind: "release", id: "pg", generation: 1 });
    m.send({ kind: "ended", processId: old, pid: 7, death: died() });
    expect(refused(m.send(prepare("other")))).toBe(false);
  });
  it("a newer attempt of a driver begins once the older is gone (N7)", () => {
    const m = machine();
    m.send({ kind: "start_job", start: jobStart("j") });
    const processId = m.state().jobs.get("j")?.processId ?? "";
    expect(kinds(m.send({ kind: "start_job", start: jobStart("j", 2) }))).toEqual(["end"]);
    expect(kinds(m.send({ kind: "ended", processId, pid: 5, death: died() }))).toEqual(["job ended", "launch_driver"]);
    m.send({ kind: "start_job", start: jobStart("j", 3) });
    expect(kinds(m.send({ kind: "stop_job", jobId: "j", graceMs: 0 }))).toEqual(["end", "job ended"].reverse());
  });
  it("of an actor's or driver's records the newest is adopted, in whatever order they are found", () => {
    for (const order of [
      [1, 2],
      [2, 1],
    ]) {
      const m = machine();
      for (const incarnation of order)
        m.send({
          kind: "adopted_actor",
          processId: `p${incarnation}`,
          pid: incarnation,
          language: "node",
          start: startOf("a", incarnation),
        });
      m.send({ kind: "ended", processId: "p1", pid: 1, death: died() });
      m.send({
        kind: "host_registered",
        processId: "p2",
        pid: 2,
        language: "node",
        actor: { actorId: "a", incarnation: 2, jobId: "j", state: "alive", socketPath: "/s" },
      });
      expect(inventory(m.state()).actors).toMatchObject([{ incarnation: 2, pid: 2, socket: "/s" }]);
      for (const attempt of order)
        m.send({ kind: "adopted_job", processId: `d${attempt}`, pid: attempt, logPath: "", start: jobStart("j", attempt) });
      m.send({ kind: "ended", processId: "d1", pid: 1, death: died() });
      expect(inventory(m.state()).jobs).toMatchObject([{ attempt: 2, pid: 2 }]);
    }
  });
});

describe("GPUs and bundles", () => {
  const bundle = (index: number, gpuIndices: number[], gpu = 10_000) => ({
    index,
    resources: { GPU: gpu },
    nodeId: "n",
    gpuIndices,
    address: "",
    gpuUuids: [],
  });
  const prepare = (id: string, generation: number, gpuIndices: number[]): NodeEvent => ({
    kind: "prepare",
    id,
    generation,
    bundles: gpuIndices.map((gpu, i) => bundle(i, [gpu])),
    ttlMs: 100,
  });
  const failureOf = (effects: readonly NodeEffect[]) => {
    const up = effects.flatMap((effect) =>
      effect.kind === "report" && effect.up.message?.$case === "bundles" ? [effect.up.message.value.failure.toString()] : [],
    )[0];
    return up === undefined || up === "" ? null : (JSON.parse(up) as { code: string }).code;
  };
  it("refuses what is held already (B3), lapses what was not committed, ignores older generations (B2)", () => {
    const m = machine();
    expect(failureOf(m.send(prepare("pg", 1, [0])))).toBeNull();
    expect(failureOf(m.send(prepare("other", 1, [0])))).toBe("conflict");
    expect(goneOf(m.send({ kind: "start_actor", start: startOf("a", 1, { resources: { GPU: 5_000 } }, [0]) }))?.death?.message).toMatch(
      /GPU 0/,
    );
    m.send({ kind: "timer", timer: { of: "reservation", id: "pg", generation: 1 } });
    expect(failureOf(m.send({ kind: "commit", id: "pg", generation: 1 }))).toBe("not_found");
    m.send(prepare("pg", 2, [1]));
    expect(failureOf(m.send({ kind: "commit", id: "pg", generation: 2 }))).toBeNull();
    m.send({ kind: "timer", timer: { of: "reservation", id: "pg", generation: 2 } });
    expect(failureOf(m.send({ kind: "release", id: "pg", generation: 1 }))).toBe("conflict");
    expect(inventory(m.state()).bundles).toMatchObject([{ placementGroupId: "pg", generation: 2, committed: true }]);
    expect(failureOf(m.send({ kind: "release", id: "pg", generation: 2 }))).toBeNull();
    expect(failureOf(m.send({ kind: "release", id: "pg", generation: 2 }))).toBeNull();
    expect(failureOf(m.send(prepare("pg", 3, [7])))).toBe("not_found");
  });
  it("never promise more than a whole GPU, whatever comes (B3)", () => {
    const id = fc.constantFrom("p", "q", "r");
    const generation = fc.integer({ min: 1, max: 3 });
    const gpu = fc.constantFrom<number[]>([0], [1], [0, 1]);
    const event: fc.Arbitrary<NodeEvent> = fc.oneof(
      fc.tuple(id, generation, gpu).map(([i, g, x]) => prepare(i, g, x)),
      fc.tuple(id, generation).map(([i, g]): NodeEvent => ({ kind: "commit", id: i, generation: g })),
      fc.tuple(id, generation).map(([i, g]): NodeEvent => ({ kind: "release", id: i, generation: g })),
      fc.tuple(id, generation).map(([i, g]): NodeEvent => ({ kind: "timer", timer: { of: "reservation", id: i, generation: g } })),
      fc
        .tuple(id, generation, gpu)
        .map(([i, g, x]): NodeEvent => ({ kind: "start_actor", start: startOf(i, g, { resources: { GPU: 5_000 * x.length } }, x) })),
    );
    fc.assert(
      fc.property(fc.array(event, { maxLength: 30 }), (events) => {
        const m = machine();
        for (const each of events) {
          m.send(each);
          const bundles = [...m.state().bundles.values()].flatMap((r) =>
            r.bundles.map((b) => gpuShares(b.resources["GPU"] ?? 0, b.gpuIndices)),
          );
          const actors = [...m.state().actors.values()].flatMap(({ life }) =>
            life === null ? [] : [gpuShares(life.start.spec?.resources["GPU"] ?? 0, life.start.gpuIndices)],
          );
          for (const [, units] of sumShares([...bundles, ...actors])) expect(units).toBeLessThanOrEqual(10_000);
        }
      }),
    );
  });
});

describe("a stop", () => {
  it("ends everything and starts nothing more (N5)", () => {
    const m = machine(1);
    m.alive("a");
    m.send({ kind: "start_job", start: jobStart("j") });
    expect(kinds(m.send({ kind: "stop", graceMs: 10, reason: "asked" })).filter((kind) => kind === "end").length).toBe(3);
    expect(kinds(m.send({ kind: "start_actor", start: startOf("b") }))).toEqual(["actor gone"]);
    expect(kinds(m.send({ kind: "start_job", start: jobStart("k") }))).toEqual(["job ended"]);
    const processId = m.state().jobs.get("j")?.processId ?? "";
    m.send({ kind: "ended", processId, pid: 1, death: died() });
    expect(inventory(m.state()).endedJobs).toMatchObject([
      { state: { value: { stopped: true, message: "its node node_0000000000000001 was stopped (asked); its driver: killed by SIGKILL" } } },
    ]);
  });
});
