import type { HookArgs, Reward, Sample } from "@slime/backend";

/** What a scoring worker runs: a built-in rule, or a function of the user's. */
export type RewardSpec =
  | { readonly kind: "rule"; readonly name: string }
  | { readonly kind: "module"; readonly file: string; readonly name: string | null; readonly group: boolean }
  | { readonly kind: "python"; readonly file: string; readonly name: string | null; readonly group: boolean; readonly python: string };

export interface WorkerStart {
  readonly spec: RewardSpec;
  readonly args: HookArgs;
}

/** One piece of work: the samples of one group, scored together or one by one. */
export interface WorkerRequest {
  readonly id: number;
  readonly samples: readonly Sample[];
}

export type Scored = { readonly kind: "scored"; readonly reward: Reward } | { readonly kind: "failed"; readonly reason: string };

export type WorkerMessage =
  | { readonly kind: "ready" }
  | { readonly kind: "broken"; readonly reason: string }
  | { readonly kind: "done"; readonly id: number; readonly results: readonly Scored[] };
