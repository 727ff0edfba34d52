import { invariant, unreachable } from "@slime/core";
import type { LaneJob, LoopCommand, LoopConfig, LoopEvent, LoopState, Reduced } from "./loop-state.js";

/** The format of events and their meaning. Raised when an old journal would be reduced differently. */
export const reducerVersion = 1;

/**
 * The loop: what happened in, what to do next out. Pure, so that a run replays from its journal and is simulated on virtual time.
 * Order of a sync rollout: generate → train → save → push → eval. Async: generation is a lane of its own and runs ahead of the
 * trainer's by at most `bufferSize` finished rollouts.
 */
export function reduce(config: LoopConfig, state: LoopState, event: LoopEvent): Reduced {
  if (state.phase === "finished" || state.phase === "failed") {
    if (event.kind !== "attempt.started") return { state, commands: [] };
  }
  if ("era" in event && event.era !== state.era) return { state, commands: [] };
  const next = apply(config, state, event);
  return advance(config, next.state, next.commands);
}

function apply(config: LoopConfig, state: LoopState, event: LoopEvent): Reduced {
  switch (event.kind) {
    case "attempt.started": {
      const versionMax = Math.max(state.versionMax, event.versionMax);
      return rollback(
        { ...state, attempt: state.attempt + 1, versionMax, checkpoint: event.checkpoint, trainerRestarts: 0, failure: null },
        "a driver took the run over",
      );
    }
    case "started":
      return nothing({ ...state, phase: "running", agenda: opening(config, state) });
    case "generated":
      invariant(state.generating === event.rolloutId, `L2: rollout ${event.rolloutId} came back, ${state.generating} was asked for`);
      return nothing({ ...state, generating: null, waiting: [...state.waiting, event.rolloutId] });
    case "trained":
      return nothing({ ...ended(state, "train"), trained: event.rolloutId + 1, agenda: afterTraining(config, state, event.rolloutId) });
    case "saved":
      return nothing({ ...ended(state, "save"), checkpoint: event.checkpoint, trainerRestarts: 0 });
    case "pushed":
      invariant(event.version > state.version, `L4: version ${event.version} was pushed after ${state.version}`);
      return nothing({ ...ended(state, "push"), version: event.version });
    case "evaluated":
      return nothing(ended(state, "eval"));
    case "trainer.lost": {
      const trainerRestarts = state.trainerRestarts + 1;
      if (trainerRestarts > config.trainerRestartsMax) {
        return fail(
          state,
          "actor.died",
          `the trainer was lost ${trainerRestarts} times without a checkpoint in between, the last time: ${event.reason}`,
        );
      }
      return rollback({ ...state, trainerRestarts }, event.reason);
    }
    case "failed":
      return fail(state, event.code, event.message);
    default:
      return unreachable(event);
  }
}

const nothing = (state: LoopState): Reduced => ({ state, commands: [] });

function fail(state: LoopState, code: string, message: string): Reduced {
  const failure = { code, message };
  return { state: { ...state, phase: "failed", failure, generating: null, lane: null, agenda: [] }, commands: [{ kind: "fail", failure }] };
}

function ended(state: LoopState, kind: LaneJob["kind"]): LoopState {
  invariant(state.lane?.kind === kind, `L2: ${kind} ended, but the lane does ${state.lane?.kind ?? "nothing"}`);
  return { ...state, lane: null };
}

/** Everything goes back to the last checkpoint together: weights, cursor, ledger, buffer. What is in flight belongs to the era before. */
function rollback(state: LoopState, reason: string): Reduced {
  const era = state.era + 1;
  const trained = state.checkpoint?.trained ?? 0;
  return {
    state: {
      ...state,
      era,
      phase: "starting",
      trained,
      generated: trained,
      generating: null,
      waiting: [],
      lane: null,
      agenda: [],
      version: 0,
    },
    commands: [{ kind: "start", era, checkpoint: state.checkpoint, reason }],
  };
}

/** Engines get the trainer's weights before anything else; then the evaluation before training. */
function opening(config: LoopConfig, state: LoopState): readonly LaneJob[] {
  const evalOnly = config.rollouts === 0 && config.evalInterval !== null;
  if (state.trained >= config.rollouts && !evalOnly) return [];
  const push: LaneJob = { kind: "push", version: state.versionMax + 1 };
  const first = state.trained === 0 && config.evalInterval !== null && (config.evalBeforeTrain || evalOnly);
  return first ? [push, { kind: "eval", rolloutId: 0 }] : [push];
}

function afterTraining(config: LoopConfig, state: LoopState, rolloutId: number): readonly LaneJob[] {
  const last = rolloutId === config.rollouts - 1;
  const evaluates = periodic(config, config.evalInterval, rolloutId);
  const agenda: LaneJob[] = [];
  if (last || periodic(config, config.saveInterval, rolloutId)) agenda.push({ kind: "save", rolloutId });
  // The last weights reach the engines only if somebody still asks them.
  const due = config.mode === "sync" || (rolloutId + 1) % config.pushInterval === 0;
  if (last ? evaluates : due) agenda.push({ kind: "push", version: state.versionMax + 1 });
  if (evaluates) agenda.push({ kind: "eval", rolloutId: rolloutId + 1 });
  return agenda;
}

/** Upstream's rule: every `interval` rollouts, at epoch boundaries, and at the last rollout. */
export function periodic(config: LoopConfig, interval: number | null, rolloutId: number): boolean {
  if (interval === null) return false;
  if (rolloutId === config.rollouts - 1) return true;
  const done = rolloutId + 1;
  return done % interval === 0 || (config.rolloutsPerEpoch !== null && done % config.rolloutsPerEpoch === 0);
}

/** Fills the two lanes with what may start now. */
function advance(config: LoopConfig, state: LoopState, before: readonly LoopCommand[]): Reduced {
  if (state.phase !== "running") return { state, commands: before };
  const commands = [...before];
  let next = state;
  if (next.lane === null) {
    const [job, ...agenda] = next.agenda.length > 0 ? next.agenda : trainable(next);
    if (job !== undefined) {
      const begun = job.kind === "push" ? { versionMax: Math.max(next.versionMax, job.version) } : {};
      const taken = job.kind === "train" ? { waiting: next.waiting.slice(1) } : {};
      next = { ...next, ...begun, ...taken, lane: job, agenda };
      commands.push({ kind: "lane", era: next.era, job });
    }
  }
  if (mayGenerate(config, next)) {
    const rolloutId = next.generated;
    next = { ...next, generating: rolloutId, generated: rolloutId + 1 };
    commands.push({ kind: "generate", era: next.era, rolloutId });
  }
  if (next.lane === null && next.trained >= config.rollouts) {
    next = { ...next, phase: "finished" };
    commands.push({ kind: "finish" });
  }
  return { state: next, commands };
}

function trainable(state: LoopState): readonly LaneJob[] {
  const [rolloutId] = state.waiting;
  return rolloutId === undefined ? [] : [{ kind: "train", rolloutId }];
}

function mayGenerate(config: LoopConfig, state: LoopState): boolean {
  // Engines hold nobody's weights before the era's first push.
  if (state.version === 0 || state.generating !== null || state.generated >= config.rollouts) return false;
  if (config.mode === "sync") return state.lane === null && state.waiting.length === 0;
  if (state.waiting.length >= config.bufferSize) return false;
  return config.waitForLag === null || expectedLag(config, state) <= config.waitForLag;
}

/** Pushes between now and the training of the next rollout to generate: its lag if its oldest token came now. */
function expectedLag(config: LoopConfig, state: LoopState): number {
  const pending = [state.lane, ...state.agenda].filter((job) => job?.kind === "push").length;
  const inTraining = state.lane?.kind === "train" ? pushesBetween(config, state.trained, state.trained + 1) : 0;
  const from = state.lane?.kind === "train" ? state.trained + 1 : state.trained;
  return pending + inTraining + pushesBetween(config, from, state.generated);
}

function pushesBetween(config: LoopConfig, from: number, to: number): number {
  return Math.floor(to / config.pushInterval) - Math.floor(from / config.pushInterval);
}
