import type { EngineModel } from "./engine-groups.js";
import type { Camel, FlagRow } from "./flag-row.js";
import { learningFlags } from "./flags-learning.js";
import { worldFlags } from "./flags-world.js";
import type { PassThrough } from "./pass-through.js";

/** Every flag of `slime train` and `slime train-async`. Adding one: a row, a reader, the golden file (README, checklist). */
export const flags = [...worldFlags, ...learningFlags] as const;

type Rows = (typeof flags)[number];
type ValueOf<R> = R extends FlagRow<string, infer Value> ? Value : never;

export type FlagName = Rows["name"];
/** The resolved values of all flags, by key. */
export type FlagValues = { readonly [R in Rows as Camel<R["name"]>]: ValueOf<R> };

/** `sync` is `slime train`, `async` is `slime train-async`. */
export type RunMode = "sync" | "async";

/** One run's configuration: resolved once, frozen, handed down whole. */
export type RunConfig = FlagValues & {
  readonly mode: RunMode;
  /** `--sglang-*` without a row, by SGLang's names. */
  readonly sglangArgs: PassThrough;
  /** `--router-*` without a row, by sglang_router's names. */
  readonly routerArgs: PassThrough;
  /** What `--sglang-config` says; null: not given. */
  readonly sglangModels: readonly EngineModel[] | null;
};
