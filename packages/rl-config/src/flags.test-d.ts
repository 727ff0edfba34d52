import { expectTypeOf } from "vitest";
import type { Camel } from "./flag-row.js";
import type { FlagName, RunConfig } from "./flags.js";

expectTypeOf<Camel<"rollout-num-gpus-per-engine">>().toEqualTypeOf<"rolloutNumGpusPerEngine">();
expectTypeOf<RunConfig["rolloutBatchSize"]>().toEqualTypeOf<number>();
expectTypeOf<RunConfig["numRollout"]>().toEqualTypeOf<number | null>();
expectTypeOf<RunConfig["stalenessPolicy"]>().toEqualTypeOf<"drop" | "wait" | "refill" | "mask">();
expectTypeOf<RunConfig["updateWeightsPauseMode"]>().toEqualTypeOf<"abort" | "retract" | "in_place" | null>();
expectTypeOf<RunConfig["evalPromptData"]>().toEqualTypeOf<readonly { readonly name: string; readonly path: string }[]>();
expectTypeOf<"lr">().toExtend<FlagName>();
// @ts-expect-error a key that is no flag's
export type Missing = RunConfig["learningRate"];
