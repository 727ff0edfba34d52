import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  admit,
  type ControlCall,
  describeState,
  type EngineCall,
  type EngineState,
  endState,
  finish,
  memoryTags,
  phaseOf,
  startState,
} from "./engine-state.js";

const facts = { weightsBackup: false };

/** Sends calls one after the other, each of which the server does. Null: one was refused. */
function after(...calls: readonly ControlCall[]): EngineState {
  let state: EngineState = startState;
  for (const call of calls) {
    const admission = admit(state, call);
    if (admission.kind === "refused") throw new Error(`${call.kind} in ${describeState(state)}: ${admission.wanted}`);
    state = finish(admission.state, "done", facts);
  }
  return state;
}

const abort = { kind: "pause", mode: "abort" } as const;
const inPlace = { kind: "pause", mode: "in_place" } as const;
const resume = { kind: "resume" } as const;
const flush = { kind: "flush" } as const;
const update = { kind: "update", flush: false, parts: 3 } as const;
const releaseAll = { kind: "release", tags: memoryTags } as const;
const regain = (...tags: readonly (typeof memoryTags)[number][]) => ({ kind: "regain", tags }) as const;
const generate = { kind: "generate" } as const;

const refusals: readonly (readonly [string, EngineState, EngineCall, RegExp])[] = [
  ["S1: anything after the end", endState("exit code -9"), { kind: "observe" }, /restart/],
  ["S3: an update that flushes", after(inPlace), { ...update, flush: true }, /flush_cache false/],
  [
    "S3: a group's update that flushes",
    after(abort, { kind: "join-group", group: "g" }),
    { kind: "update-from-group", group: "g", flush: true },
    /flush/,
  ],
  ["S4: a request while released", after(abort, flush, releaseAll), generate, /regain of weights, kv_cache, cuda_graph/],
  ["S4: a request to weights that are gone", after(abort, flush, releaseAll, regain(...memoryTags)), generate, /update of the weights/],
  ["S5: a release while running", startState, releaseAll, /pause by abort/],
  ["S5: a release while requests are held", after(inPlace), releaseAll, /pause by abort/],
  ["S5: a release before a flush", after(abort), releaseAll, /flush/],
  ["S5: a release after a flush before the pause", after(flush, abort), releaseAll, /flush/],
  ["S5: a release after another pause's flush", after(abort, flush, resume, abort), releaseAll, /flush/],
  ["S6: a second release", after(abort, flush, { kind: "release", tags: ["kv_cache"] }), releaseAll, /not kv_cache/],
  ["S6: regaining what is there", after(abort, flush, { kind: "release", tags: ["kv_cache"] }), regain("weights"), /not weights/],
  ["S6: releasing nothing", after(abort, flush), { kind: "release", tags: [] }, /tags/],
  ["S7: going on while released", after(abort, flush, releaseAll, regain("weights"), update), resume, /kv_cache, cuda_graph/],
  ["S7: going on without weights", after(abort, flush, releaseAll, regain(...memoryTags)), resume, /update/],
  ["S8: another mode while paused", after(inPlace), abort, /resume before/],
  ["S9: an update in parts while running", startState, update, /3 parts/],
  ["S9: an update of released weights", after(abort, flush, releaseAll), update, /regain of weights/],
  ["S9: a group nobody joined", after(abort), { kind: "update-from-group", group: "g", flush: false }, /g to be joined/],
  ["S9: leaving it", startState, { kind: "leave-group", group: "g" }, /g to be joined/],
  ["S10: health while paused", after(abort), { kind: "health" }, /to run/],
  ["S10: health while released", after(abort, flush, releaseAll), { kind: "health" }, /regain/],
  ["a flush of released memory", after(abort, flush, releaseAll), flush, /regain/],
];

describe("admit", () => {
  it.each(refusals)("%s is refused", (_name, state, call, wanted) => {
    const admission = admit(state, call);
    expect(admission).toMatchObject({ kind: "refused", wanted: expect.stringMatching(wanted) as string });
  });

  it("a colocated step passes: release, regain weights, push, regain the rest, go on", () => {
    const state = after(abort, flush, releaseAll, regain("weights"), update, regain("kv_cache", "cuda_graph"), resume);
    expect(state).toEqual(startState);
  });

  it("S2: one control call at a time; requests, aborts and loads pass beside it", () => {
    const admission = admit(after(abort), update);
    if (admission.kind === "refused") throw new Error(admission.wanted);
    expect(phaseOf(admission.state)).toBe("updating");
    expect(admit(admission.state, resume)).toMatchObject({ kind: "refused", wanted: expect.stringContaining("update") as string });
    for (const kind of ["generate", "abort", "observe"] as const) expect(admit(admission.state, { kind }).kind).toBe("admitted");
  });

  it("S7: an update that broke off keeps the engine paused until a whole one", () => {
    const admission = admit(after(abort), update);
    if (admission.kind === "refused") throw new Error(admission.wanted);
    const torn = finish(admission.state, "torn", facts);
    expect(admit(torn, resume).kind).toBe("refused");
    expect(describeState(torn)).toBe("paused by abort, weights torn");
    const again = admit(torn, update);
    if (again.kind === "refused") throw new Error(again.wanted);
    expect(admit(finish(again.state, "done", facts), resume).kind).toBe("admitted");
  });

  it("weights that the server keeps come back whole", () => {
    const admission = admit(after(abort, flush, releaseAll), regain(...memoryTags));
    if (admission.kind === "refused") throw new Error(admission.wanted);
    expect(admit(finish(admission.state, "done", { weightsBackup: true }), resume).kind).toBe("admitted");
  });
});

const mode = fc.constantFrom("abort", "retract", "in_place");
const tags = fc.subarray([...memoryTags]);
const group = fc.constantFrom("g", "h");
const anyCall: fc.Arbitrary<EngineCall> = fc.oneof(
  fc.record({ kind: fc.constantFrom("generate", "abort", "observe", "health", "resume", "flush", "check-weights") }),
  fc.record({ kind: fc.constant("pause"), mode }),
  fc.record({ kind: fc.constant("update"), flush: fc.boolean(), parts: fc.constantFrom(1, 2) }),
  fc.record({ kind: fc.constantFrom("join-group", "leave-group"), group }),
  fc.record({ kind: fc.constant("update-from-group"), group, flush: fc.boolean() }),
  fc.record({ kind: fc.constantFrom("release", "regain"), tags }),
) as fc.Arbitrary<EngineCall>;

/** What a stock server does of itself, and of requests that others send it past us. */
class FrailServer {
  paused: string | null = null;
  running = 0;
  blocked = 0;
  /** What a pause aborted takes a moment to end; a flush waits for it. */
  aborting = false;
  readonly released = new Set<string>();
  readonly groups = new Set<string>();
  empty = false;
  torn = false;
  /** Why it died, hung or served rubbish. */
  lost: string | null = null;

  /** A request reaches it, from whomever. */
  arrive(): void {
    if (this.paused !== null) this.blocked++;
    else this.#run(1);
  }

  /** Time passes: what runs ends, unless a pause holds it. */
  end(): void {
    if (this.paused === null || this.aborting) this.running = 0;
  }

  /** @returns whether it answered 200. */
  take(call: EngineCall): boolean {
    switch (call.kind) {
      case "generate":
        this.arrive();
        return true;
      case "health":
        if (this.paused !== null) this.lost = "judged by a health check that could not succeed";
        this.#run(0);
        return true;
      case "pause":
        if (call.mode === "abort" && this.paused !== null && this.paused !== "abort" && this.running > 0) this.lost = "waits for ever";
        this.aborting = call.mode === "abort";
        this.paused = call.mode;
        return true;
      case "resume":
        this.end();
        this.paused = null;
        this.#run(this.blocked);
        this.blocked = 0;
        return true;
      case "flush":
        this.end();
        if (this.released.has("kv_cache")) this.lost = "flushed released memory";
        // Newer servers flush what a pause by retract sent back to the queue.
        return this.running === 0 || this.paused === "retract";
      case "update":
      case "update-from-group":
        if (call.flush && this.running > 0) this.lost = "flush failed after an update";
        if (this.released.has("weights")) this.lost = "wrote released weights";
        if (call.kind === "update-from-group" && !this.groups.has(call.group)) this.lost = "no such group";
        if (call.kind === "update" && call.parts > 1 && this.paused === null) this.torn = true;
        else this.empty &&= call.kind !== "update";
        return true;
      case "join-group":
        this.groups.add(call.group);
        return true;
      case "leave-group":
        return this.groups.delete(call.group);
      case "release":
        if (this.running > 0) this.lost = "released while busy";
        for (const tag of call.tags.length === 0 ? memoryTags : call.tags) {
          if (this.released.has(tag)) this.lost = `released ${tag} twice`;
          this.released.add(tag);
        }
        return true;
      case "regain":
        for (const tag of call.tags.length === 0 ? memoryTags : call.tags) {
          if (!this.released.delete(tag)) this.lost = `regained ${tag}, which was there`;
          if (tag === "weights") this.empty = true;
        }
        return true;
      case "check-weights":
        if (this.released.has("weights")) this.lost = "read released weights";
        return true;
      default:
        return true;
    }
  }

  #run(more: number): void {
    this.running += more;
    if (more > 0 && this.released.size > 0) this.lost = "ran on released memory";
    if (more > 0 && (this.empty || this.torn)) this.lost = "served without its weights";
  }
}

describe("no sequence of admitted calls loses a server", () => {
  const call = (each: EngineCall) => ({ what: "call" as const, call: each });
  /** The ways in and out of released memory, which chance alone seldom finds. */
  const way = fc.oneof(
    fc
      .record({ by: mode, flushed: fc.boolean(), tags })
      .map(({ by, flushed, tags }) => [
        call({ kind: "pause", mode: by } as EngineCall),
        ...(flushed ? [call(flush)] : []),
        call({ kind: "release", tags }),
      ]),
    fc.constantFrom(
      [call(regain(...memoryTags)), call(resume)],
      [call(regain("weights")), call(update)],
      [call(regain("kv_cache", "cuda_graph")), call(resume)],
    ),
  );
  const step = fc.oneof(
    { weight: 4, arbitrary: anyCall.map((each) => [call(each)]) },
    { weight: 3, arbitrary: way },
    { weight: 2, arbitrary: fc.constantFrom([{ what: "stranger" as const }], [{ what: "ends" as const }]) },
  );

  it("S3 to S10: whatever we ask, and others send past us", () => {
    let admitted = 0;
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        let state: EngineState = startState;
        const server = new FrailServer();
        for (const each of steps.flat()) {
          if (each.what === "stranger") server.arrive();
          else if (each.what === "ends") server.end();
          else {
            const admission = admit(state, each.call);
            if (admission.kind === "refused") continue;
            admitted++;
            const done = server.take(each.call);
            state = finish(admission.state, done ? "done" : "unchanged", facts);
          }
          expect(server.lost, describeState(state)).toBeNull();
        }
      }),
      { numRuns: 3_000 },
    );
    expect(admitted).toBeGreaterThan(3_000);
  });

  it("S11: after a call without an answer nothing is sent, whatever it was", () => {
    fc.assert(
      fc.property(fc.array(anyCall, { maxLength: 12 }), anyCall, (calls, next) => {
        let state: EngineState = startState;
        for (const call of calls) {
          const admission = admit(state, call);
          if (admission.kind === "admitted") state = finish(admission.state, "done", facts);
        }
        const last = admit(state, { kind: "check-weights" });
        if (last.kind === "refused") return;
        const ended = finish(last.state, "lost", facts);
        expect(phaseOf(ended)).toBe("ended");
        expect(admit(ended, next)).toMatchObject({ kind: "refused" });
      }),
    );
  });
});
