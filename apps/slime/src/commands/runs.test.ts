import { join } from "node:path";
import type { RunView } from "@slime/training";
import { expect, it } from "vitest";
import { runLines } from "./runs.js";

const view = (name: string, state: RunView["state"], more: Partial<RunView> = {}): RunView => ({
  runId: name,
  root: join(process.cwd(), "outputs", name),
  mode: "sync",
  rollouts: 10,
  trained: 5,
  attempts: 1,
  state,
  holder: null,
  failure: null,
  checkpoint: "step-0000004",
  reward: 0.5,
  evals: {},
  createdAtMs: 0,
  ...more,
});
const holder = { pid: 77, host: "there", birth: "b" };

it("tells of each run whether somebody drives it, and from where it would go on", () => {
  expect(
    runLines([
      view("a", "running", { holder }),
      view("b", "killed", { holder, attempts: 2 }),
      view("c", "stopped", { checkpoint: null }),
      view("d", "held", { holder }),
      view("e", "failed", { failure: `[reward.failed] ${"x".repeat(200)}` }),
    ]).map((line) => line.slice(line.indexOf("–") + 1).trim()),
  ).toEqual([
    "run        mode  rollouts  reward  eval  state",
    "running             pid 77",
    "killed (attempt 2)  resumes from step-0000004",
    "stopped             no checkpoint",
    "held                by there, pid 77",
    `failed              [reward.failed] ${"x".repeat(83)}…`,
  ]);
});
