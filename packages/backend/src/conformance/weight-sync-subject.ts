import { expect } from "vitest";
import type { Engine, PauseMode } from "../engine.js";
import type { PushReport, WeightSync } from "../weight-sync.js";
import { near } from "./engine-generation.js";
import type { PushStage } from "./push-stage.js";

/** A push with its trainer and two engines, `a` and `b`, which are on stage with weights of version 0 and behind closed fences. */
export interface WeightSyncSubject extends AsyncDisposable {
  readonly sync: WeightSync;
  readonly stage: PushStage;
  /** Says that what is known of this url is void: its engine died. */
  readonly forget: (url: string) => void;
  /** Lets the sync's own time pass, and with it its deadlines. */
  readonly pass: (ms: number) => void;
  /** New tokens of a request that must still run when a push arrives. */
  readonly longTokens: number;
  readonly logProbDifferenceMax: number;
  /** Changes the trainer's weights. */
  readonly train: () => Promise<void>;
  /** The trainer's log-probs of tokens 1… at temperature 1, under the weights it has now. */
  readonly trainerLogProbs: (tokens: readonly number[]) => Promise<ArrayLike<number>>;
  /** A rank dies with half of the next export written. */
  readonly breakExport: () => Promise<void>;
  /** A new trainer in the place of a dead one, with the weights that it had. */
  readonly reviveTrainer: () => Promise<void>;
  /** A new engine in the place of one that died, at the same url where it can be, with weights of version 0. */
  readonly startEngine: (id: string) => Promise<Engine>;
}

export interface WeightSyncOptions {
  readonly pauseMode: PauseMode;
  readonly canary: boolean;
}

/** Starts a fresh subject for one case. */
export type StartWeightSync = (options: WeightSyncOptions) => Promise<WeightSyncSubject>;

export const pushMs = 20_000;
/** What engines and trainer are compared by. */
export const text = [3, 7, 5, 9, 4, 8];
export const plain: WeightSyncOptions = { pauseMode: "retract", canary: true };

let pushes = 0;

/** Asks for a push under an op id that nobody had before: a gang may serve several subjects. */
export function push({ sync }: WeightSyncSubject, version: number): Promise<PushReport> {
  return sync.push({ version, opId: `push-${pushes++}`, timeoutMs: pushMs });
}

/** A request of two greedy tokens. */
export function request(rid: string, input_ids: readonly number[] = text) {
  return {
    rid,
    input_ids,
    sampling_params: { temperature: 0, top_p: 1, top_k: -1, max_new_tokens: 2, ignore_eos: true },
    return_logprob: true,
  };
}

/** The engine's log-probs of `text` from its second token on. */
export async function score(engine: Engine): Promise<readonly (number | null)[]> {
  const sampling_params = { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: 1, ignore_eos: true };
  return (await engine.generate({ ...request("score"), sampling_params, logprob_start_len: 0 }, { timeoutMs: 30_000 })).inputLogProbs.slice(
    1,
  );
}

/** It is open at this version, says so, and its log-probs are the trainer's. */
export async function expectServes(subject: WeightSyncSubject, id: string, version: number): Promise<void> {
  const { stage } = subject;
  expect(stage.opened(id), `fence of ${id}`).toBe(version);
  expect((await stage.bare(id).info()).weightVersion).toBe(String(version));
  expect((await stage.through(id, request(`serves-${id}`))).weightVersion).toBe(String(version));
  near(await score(stage.bare(id)), Array.from(await subject.trainerLogProbs(text)), subject.logProbDifferenceMax);
}
