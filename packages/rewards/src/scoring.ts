import { type GroupRewardHook, type HookArgs, type Reward, type RewardHook, rewardHookNames, type Sample } from "@slime/backend";
import { reasonOf, SlimeError } from "@slime/core";
import { graderNames, graderOf } from "./graders.js";
import type { RewardSpec, Scored } from "./protocol.js";

export type ScoreGroup = (samples: readonly Sample[]) => Promise<readonly Scored[]>;

/** Loads what the spec names and returns the function that scores a group with it. Used inside a worker. */
export async function loadScoring(spec: Exclude<RewardSpec, { kind: "python" }>, args: HookArgs): Promise<ScoreGroup> {
  if (spec.kind === "rule") {
    const grader = graderOf(spec.name);
    if (grader === null) throw unknownRule(spec.name);
    return async (samples) => samples.map((sample) => checked(grader(sample)));
  }
  const hook = await loadHook(spec.file, spec.name);
  if (!spec.group) return (samples) => Promise.all(samples.map((sample) => one(async () => (hook as RewardHook)(args, sample))));
  return async (samples) => {
    try {
      const rewards = await (hook as GroupRewardHook)(args, samples);
      if (rewards.length !== samples.length) throw new RangeError(`it returned ${rewards.length} rewards for ${samples.length} samples`);
      return rewards.map(checked);
    } catch (error) {
      return samples.map(() => failed(error));
    }
  };
}

/** The failure for a rule that is none of ours, naming all there are; the same words whether the flags or a worker find it. */
export function unknownRule(name: string): SlimeError {
  const issue = `--rm-type ${name}: no such rule; there are ${graderNames.join(", ")}. Your own goes into --custom-rm-path FILE[:NAME]`;
  return new SlimeError("config.invalid", issue, { issues: [issue] });
}

async function loadHook(file: string, name: string | null): Promise<unknown> {
  const loaded = await importUserModule(file);
  const candidates = name === null ? [...rewardHookNames] : [name];
  const found = candidates.find((candidate) => typeof loaded[candidate] === "function");
  if (found === undefined) {
    throw new SlimeError(
      "hook.failed",
      `${file} exports no function ${candidates.join(", ")}; it exports ${Object.keys(loaded).join(", ") || "nothing"}`,
      {
        hook: "--custom-rm-path",
        path: file,
      },
    );
  }
  return loaded[found];
}

/** Imports a user's module; TypeScript goes through tsx, which older Nodes need. */
async function importUserModule(file: string): Promise<Readonly<Record<string, unknown>>> {
  if (!/\.[cm]?ts$/.test(file)) return import(file);
  const { tsImport } = await import("tsx/esm/api");
  return tsImport(file, import.meta.url);
}

async function one(score: () => Promise<Reward>): Promise<Scored> {
  try {
    return checked(await score());
  } catch (error) {
    return failed(error);
  }
}

/** R1: a reward is finite numbers; anything else is a failure with its reason, never a zero. */
export function checked(reward: unknown): Scored {
  if (typeof reward === "number") return Number.isFinite(reward) ? { kind: "scored", reward } : failed(`it returned ${reward}`);
  if (typeof reward === "object" && reward !== null && !Array.isArray(reward)) {
    const bad = Object.entries(reward).find(([, value]) => typeof value !== "number" || !Number.isFinite(value));
    if (bad === undefined) return { kind: "scored", reward: reward as Reward };
    return failed(`it returned ${bad[0]} = ${String(bad[1])}`);
  }
  return failed(`it returned ${reward === null ? "null" : typeof reward}, not a number`);
}

const failed = (error: unknown): Scored => ({ kind: "failed", reason: typeof error === "string" ? error : reasonOf(error) });
