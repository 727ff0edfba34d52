import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sampleOf } from "@slime/backend/testing";
import { systemClock } from "@slime/core";
import { afterAll, describe, expect, it } from "vitest";
import { checkReward } from "./check.js";
import { graderOf, lastBoxed } from "./graders.js";
import { RewardPool, rewardPoolDefaults } from "./pool.js";
import type { RewardSpec } from "./protocol.js";
import { checked } from "./scoring.js";
import { rewardSpec } from "./spec.js";

const folder = mkdtempSync(join(tmpdir(), "slime-rewards-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const sample = (index: number, response: string, label: string | null = "42") => ({
  ...sampleOf(index, { prompt: 1, response: 2, cut: 1 }),
  response,
  label,
});
const pool = (spec: RewardSpec, limits: Partial<typeof rewardPoolDefaults> = {}) =>
  new RewardPool({ ...rewardPoolDefaults, ...limits, start: { spec, args: { rollout_batch_size: 4 } }, clock: systemClock });

describe("graders", () => {
  it.each([
    ["exact_match", " 42 ", "42", 1],
    ["exact_match", "142", "42", 0],
    ["boxed_exact_match", "so \\boxed{7} or \\boxed{42}", "42", 1],
    ["boxed_exact_match", "\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", 1],
    ["boxed_exact_match", "42", "42", 0],
  ])("%s of %j against %j is %d", (name, response, label, reward) => {
    expect(graderOf(name)?.(sample(0, response, label))).toBe(reward);
  });

  it("a box that never closes is no box", () => {
    expect(lastBoxed("\\boxed{1")).toBeNull();
    expect(lastBoxed("\\fbox{7}")).toBe("7");
  });

  it("R1: what is not finite numbers is a failure", () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, "1", null, undefined, [1], { a: "1" }]) {
      expect(checked(bad).kind).toBe("failed");
    }
    expect(checked({ acc: 1, len: 0.5 })).toEqual({ kind: "scored", reward: { acc: 1, len: 0.5 } });
  });
});

describe("reward choice", () => {
  const choice = { rmType: null, customRmPath: null, groupRm: false, python: "python3", cwd: folder };
  it("names what is missing before anything starts", () => {
    expect(() => rewardSpec(choice)).toThrow(/--rm-type/);
    expect(() => rewardSpec({ ...choice, rmType: "exactmatch" })).toThrow(/exact_match/);
    expect(() => rewardSpec({ ...choice, customRmPath: "none.ts" })).toThrow(/no file/);
  });
});

describe("a reward that cannot be loaded is found by loading it", () => {
  const check = (path: string, name: string | null = null, startMsMax = 20_000) =>
    checkReward({
      start: {
        spec: path.endsWith(".py")
          ? { kind: "python", file: path, name, group: false, python: "python3" }
          : { kind: "module", file: path, name, group: false },
        args: {},
      },
      clock: systemClock,
      startMsMax,
    });

  it.each([
    ["syntax.ts", "export const reward = (args => ;", null, /does not load: .*syntax\.ts/s],
    ["package.ts", 'import "node:no-such-package"; export const reward = () => 1;', null, /no-such-package/],
    ["other.js", "export const score = () => 1;", null, /exports no function reward, custom_rm, reward_func; it exports score/],
    ["named.mjs", "export const reward = () => 1;", "mine", /named\.mjs:mine does not load: .*no function mine/],
    ["throws.mjs", "throw new Error('at load'); export const reward = 1;", null, /at load/],
    ["exits.mjs", "process.exit(3);", null, /ended with code 3/],
  ])("%s", async (name, text, wanted, message) => {
    await expect(check(file(name, text), wanted)).rejects.toMatchObject({ code: "hook.failed", message: expect.stringMatching(message) });
  });

  it("a sound one passes, and is not called", async () => {
    await expect(check(file("sound.ts", "export function reward(): number { throw new Error('called'); }"))).resolves.toBeUndefined();
  });

  it("one that never ends loading is ended", async () => {
    await expect(check(file("endless.mjs", "for (;;) {}"), null, 500)).rejects.toThrow(/did not load within 0\.5 s/);
  });
});

describe("reward pool", () => {
  it("scores by a rule", async () => {
    await using rewards = pool({ kind: "rule", name: "exact_match" });
    expect(await rewards.score([sample(0, "42"), sample(1, "41")])).toEqual([
      { kind: "scored", reward: 1 },
      { kind: "scored", reward: 0 },
    ]);
  });

  it("R2, R3: a function that never returns costs its group, not the next one", async () => {
    const path = file(
      "slow.ts",
      `export function reward(args: { rollout_batch_size: number }, s: { response: string }): number {
      if (s.response === "loop") for (;;) {}
      if (s.response === "throw") throw new Error("bad answer");
      return args.rollout_batch_size;
    }`,
    );
    await using rewards = pool({ kind: "module", file: path, name: null, group: false }, { groupMsMax: 1_500 });
    const [looped, thrown, fine] = await Promise.all([
      rewards.score([sample(0, "loop")]),
      rewards.score([sample(1, "throw"), sample(2, "ok")]),
      rewards.score([sample(3, "ok")]),
    ]);
    expect(looped).toEqual([{ kind: "failed", reason: "it took longer than 1500 ms" }]);
    expect(thrown).toEqual([
      { kind: "failed", reason: "bad answer" },
      { kind: "scored", reward: 4 },
    ]);
    expect(fine).toEqual([{ kind: "scored", reward: 4 }]);
  });

  it("R4: code that does not load fails each group with the reason", async () => {
    await using rewards = pool({ kind: "module", file: file("none.js", "export const other = 1;"), name: "mine", group: false });
    for (let turn = 0; turn < 2; turn++) {
      expect(await rewards.score([sample(0, "x")])).toMatchObject([
        { kind: "failed", reason: expect.stringContaining("no function mine") },
      ]);
    }
  });

  it("a group function answers for the whole group, and must answer for each", async () => {
    const path = file(
      "group.mjs",
      "export const reward = (args, samples) => samples.length === 3 ? [1] : samples.map((s, i) => ({ acc: i }));",
    );
    await using rewards = pool({ kind: "module", file: path, name: null, group: true });
    expect(await rewards.score([sample(0, "a"), sample(1, "b")])).toEqual([
      { kind: "scored", reward: { acc: 0 } },
      { kind: "scored", reward: { acc: 1 } },
    ]);
    expect(await rewards.score([sample(0, "a"), sample(1, "b"), sample(2, "c")])).toMatchObject(
      Array(3).fill({ kind: "failed", reason: expect.stringContaining("1 rewards for 3") }),
    );
  });

  const python = spawnSync("python3", ["-c", "import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)"]).status === 0;
  it.skipIf(!python)("runs upstream's Python functions, their failures and their endless loops (needs Python ≥ 3.10)", async () => {
    const path = file(
      "custom_rm.py",
      [
        "class CustomRewardModel:",
        "    def __init__(self, model_path): self.model_path = model_path",
        "    def compute_reward(self, prompts, responses): return [float(len(r)) for r in responses]",
        "async def custom_rm(args, sample, **kw):",
        "    print('prints do no harm')",
        "    while sample.response == 'loop': pass",
        "    if sample.response == 'throw': raise ValueError('bad answer')",
        "    return {'acc': sample.response_length, 'b': args.rollout_batch_size}",
      ].join("\n"),
    );
    await using one = pool({ kind: "python", file: path, name: null, group: false, python: "python3" }, { groupMsMax: 1_500 });
    expect(await one.score([sample(0, "ok"), sample(1, "throw")])).toMatchObject([
      { kind: "scored", reward: { acc: 2, b: 4 } },
      { kind: "failed", reason: expect.stringContaining("bad answer") },
    ]);
    expect(await one.score([sample(2, "loop")])).toEqual([{ kind: "failed", reason: "it took longer than 1500 ms" }]);
    expect(await one.score([sample(3, "ok")])).toMatchObject([{ kind: "scored" }]);
    await using model = pool({ kind: "python", file: path, name: "CustomRewardModel", group: false, python: "python3" });
    expect(await model.score([sample(0, "abc")])).toEqual([{ kind: "scored", reward: 3 }]);
  });
});
