/**
 * Which calls a stock SGLang server survives, as one pure state machine per engine.
 * S1 nothing is sent to an engine that has ended.
 * S2 one call that changes the engine is under way at a time.
 * S3 no update flushes: a flush is a call of its own, so that it can be refused.
 * S4 requests reach an engine only while all its memory is there and its weights are whole.
 * S5 memory is released only after a pause by abort and a flush since: then nothing runs and nothing can begin, whoever else sends requests.
 * S6 only what is released is regained, and only what is there is released.
 * S7 an engine goes on only with all its memory and with whole weights.
 * S8 the mode of a pause stands until the engine goes on: aborting what another mode holds waits for ever.
 * S9 an update needs its memory; of several parts, a pause too, or requests between two parts would run on both; a group has been joined.
 * S10 health is asked of engines that run: a paused one never answers well, a released one dies of the question.
 * S11 an engine of which we do not know what it did with a call has ended.
 */
import type { PauseMode } from "@slime/backend";
import { unreachable } from "@slime/core";

/** What a server's memory saver knows by name. */
export const memoryTags = ["weights", "kv_cache", "cuda_graph"] as const;
export type MemoryTag = (typeof memoryTags)[number];

/** A call by what it does to the engine. Requests are checked apart, for what they hold. */
export type EngineCall =
  | { readonly kind: "generate" }
  | { readonly kind: "abort" }
  /** Loads and facts: the server answers them in any state. */
  | { readonly kind: "observe" }
  | { readonly kind: "health" }
  | { readonly kind: "pause"; readonly mode: PauseMode }
  | { readonly kind: "resume" }
  | { readonly kind: "flush" }
  /** `parts`: HTTP calls that carry weights. */
  | { readonly kind: "update"; readonly flush: boolean; readonly parts: number }
  | { readonly kind: "join-group"; readonly group: string }
  | { readonly kind: "update-from-group"; readonly group: string; readonly flush: boolean }
  | { readonly kind: "leave-group"; readonly group: string }
  | { readonly kind: "release"; readonly tags: readonly MemoryTag[] }
  | { readonly kind: "regain"; readonly tags: readonly MemoryTag[] }
  | { readonly kind: "check-weights" };

/** Calls that change the engine and exclude each other (S2). */
export type ControlCall = Exclude<EngineCall, { readonly kind: "generate" | "abort" | "observe" | "health" }>;

/**
 * How a control call ended. `done`: the server did it. `unchanged`: it refused and is as it was. `torn`: some of the weights may be new.
 * `lost`: no answer came, so nobody knows.
 */
export type CallEnd = "done" | "unchanged" | "torn" | "lost";

export interface LiveState {
  readonly kind: "live";
  readonly pause: PauseMode | null;
  /** A flush succeeded in this pause: nothing is held. */
  readonly flushed: boolean;
  readonly released: readonly MemoryTag[];
  /** `torn`: an update broke off; `gone`: the memory was released and came back without them. */
  readonly weights: "whole" | "torn" | "gone";
  readonly groups: readonly string[];
  readonly busy: ControlCall | null;
}

export type EngineState = LiveState | { readonly kind: "ended"; readonly reason: string };

export type Admission =
  | { readonly kind: "admitted"; readonly state: EngineState }
  /** `wanted`: what has to come first. */
  | { readonly kind: "refused"; readonly wanted: string };

/** What the machine must know of the server. */
export interface StateFacts {
  /** Released weights are kept in host memory and come back whole. */
  readonly weightsBackup: boolean;
}

/** A server as it is after its start. */
export const startState: LiveState = {
  kind: "live",
  pause: null,
  flushed: false,
  released: [],
  weights: "whole",
  groups: [],
  busy: null,
};

/** The state in a word. */
export type EnginePhase = "running" | "paused" | "updating" | "released" | "ended";

/** The state in a word, for health judges and those who show it. */
export function phaseOf(state: EngineState): EnginePhase {
  if (state.kind === "ended") return "ended";
  if (state.busy?.kind === "update" || state.busy?.kind === "update-from-group") return "updating";
  if (state.released.length > 0) return "released";
  return state.pause === null ? "running" : "paused";
}

/** The state with its particulars: `paused by retract, weights torn`. */
export function describeState(state: EngineState): string {
  if (state.kind === "ended") return `ended (${state.reason})`;
  const parts: string[] = [state.pause === null ? "running" : `paused by ${state.pause}`];
  if (state.flushed) parts.push("flushed");
  if (state.released.length > 0) parts.push(`released ${state.released.join(", ")}`);
  if (state.weights !== "whole") parts.push(`weights ${state.weights}`);
  if (state.busy !== null) parts.push(`busy with ${state.busy.kind}`);
  return parts.join(", ");
}

/** Says whether a call may be sent now; a control call that may is under way until `finish`. */
export function admit(state: EngineState, call: EngineCall): Admission {
  if (state.kind === "ended") return { kind: "refused", wanted: "a restart of the engine" };
  const wanted = isControl(call) ? (busyWith(state) ?? controlWants(state, call)) : plainWants(state, call);
  if (wanted !== null) return { kind: "refused", wanted };
  return { kind: "admitted", state: isControl(call) ? { ...state, busy: call } : state };
}

/** What became of the call that is under way (S11 for `lost`). */
export function finish(state: EngineState, end: CallEnd, facts: StateFacts): EngineState {
  if (state.kind === "ended" || state.busy === null) return state;
  const { busy: call, ...rest } = state;
  if (end === "lost") return { kind: "ended", reason: `no answer to ${call.kind}` };
  const next: LiveState = { ...rest, busy: null };
  if (end === "torn") return { ...next, weights: "torn" };
  return end === "unchanged" ? next : done(next, call, facts);
}

/** An engine whose process is gone. */
export function endState(reason: string): EngineState {
  return { kind: "ended", reason };
}

function isControl(call: EngineCall): call is ControlCall {
  return !["generate", "abort", "observe", "health"].includes(call.kind);
}

/** S2. */
function busyWith({ busy }: LiveState): string | null {
  return busy === null ? null : `the end of ${busy.kind}, which is under way`;
}

/** S4, S10. Null: nothing is missing. */
function plainWants(state: LiveState, call: Exclude<EngineCall, ControlCall>): string | null {
  switch (call.kind) {
    case "abort":
    case "observe":
      return null;
    case "generate":
      return memoryBack(state) ?? wholeWeights(state);
    case "health":
      return memoryBack(state) ?? (phaseOf(state) === "running" ? null : "the engine to run");
    default:
      return unreachable(call);
  }
}

/** S3, S5 to S9. Null: nothing is missing. */
function controlWants(state: LiveState, call: ControlCall): string | null {
  switch (call.kind) {
    case "pause":
      return state.pause === null || state.pause === call.mode ? null : `resume before another mode than ${state.pause}`;
    case "resume":
      return memoryBack(state) ?? wholeWeights(state);
    case "flush":
      return memoryBack(state);
    case "update":
      if (call.flush) return "flush_cache false, and a flush of its own";
      if (call.parts > 1 && state.pause === null) return `a pause: the weights come in ${call.parts} parts`;
      return weightsThere(state);
    case "join-group":
      return state.groups.includes(call.group) ? `another name than ${call.group}, which is joined` : null;
    case "update-from-group":
      if (call.flush) return "flush_cache false, and a flush of its own";
      if (!state.groups.includes(call.group)) return `group ${call.group} to be joined`;
      return state.pause === null ? "a pause: the weights come in parts" : weightsThere(state);
    case "leave-group":
      return state.groups.includes(call.group) ? null : `group ${call.group} to be joined`;
    case "release": {
      if (call.tags.length === 0) return "the tags to release";
      const twice = call.tags.filter((tag) => state.released.includes(tag));
      if (twice.length > 0) return `tags that are not released already: not ${twice.join(", ")}`;
      if (state.pause !== "abort") return "a pause by abort";
      return state.flushed ? null : "a flush in this pause";
    }
    case "regain": {
      if (call.tags.length === 0) return "the tags to regain";
      const there = call.tags.filter((tag) => !state.released.includes(tag));
      return there.length === 0 ? null : `tags that are released: not ${there.join(", ")}`;
    }
    case "check-weights":
      return weightsThere(state);
    default:
      return unreachable(call);
  }
}

function memoryBack({ released }: LiveState): string | null {
  return released.length === 0 ? null : `regain of ${released.join(", ")}`;
}

function weightsThere({ released }: LiveState): string | null {
  return released.includes("weights") ? "regain of weights" : null;
}

function wholeWeights({ weights }: LiveState): string | null {
  return weights === "whole" ? null : "a whole update of the weights";
}

function done(state: LiveState, call: ControlCall, { weightsBackup }: StateFacts): LiveState {
  switch (call.kind) {
    case "pause":
      return { ...state, pause: call.mode };
    case "resume":
      return { ...state, pause: null, flushed: false };
    case "flush":
      return { ...state, flushed: state.pause !== null };
    case "update":
      return { ...state, weights: "whole" };
    case "join-group":
      return { ...state, groups: [...state.groups, call.group] };
    case "leave-group":
      return { ...state, groups: state.groups.filter((group) => group !== call.group) };
    case "update-from-group":
    case "check-weights":
      return state;
    case "release":
      return { ...state, released: memoryTags.filter((tag) => state.released.includes(tag) || call.tags.includes(tag)) };
    case "regain": {
      const lost = call.tags.includes("weights") && !weightsBackup;
      return { ...state, released: state.released.filter((tag) => !call.tags.includes(tag)), weights: lost ? "gone" : state.weights };
    }
    default:
      return unreachable(call);
  }
}
