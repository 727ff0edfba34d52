import { describe, expect, it } from "vitest";
import { driverLog } from "./driver-log.js";

const kept = (isStopping = () => false) => {
  const lines: string[] = [];
  return { lines, log: driverLog({ write: (line) => void lines.push(line), isStopping }) };
};

describe("the driver's log", () => {
  it("says in words what a person follows, and shows what it has no words for as name and fields", () => {
    const { lines, log } = kept();
    log.warn("rollout.groups.failed", {
      rolloutId: 3,
      groups: 64,
      prompts: ["0:1", "0:2", "0:3"],
      code: "reward.failed",
      reason: "it threw",
      retryable: false,
    });
    log.warn("rollout.groups.failed", {
      rolloutId: 3,
      groups: 1,
      prompts: ["0:9"],
      code: "call.deadline",
      reason: "late",
      retryable: true,
    });
    log.child({ engine: "e0" }).warn("something.new", { tries: 2, error: new Error("outer", { cause: new Error("inner") }) });
    log.info("run.started");
    expect(lines).toEqual([
      "warning: 64 prompts of rollout 3 failed: it threw (reward.failed; for example 0:1, 0:2, 0:3)",
      "warning: 1 prompt of rollout 3 failed and will be tried again: late (call.deadline; 0:9)",
      "warning: something.new engine=e0 tries=2 error=outer: inner",
    ]);
  });

  it("says equal lines in a row once, and how often they came", () => {
    const { lines, log } = kept();
    for (let n = 0; n < 33; n++) log.warn("push.fence_away", { reason: "refused" });
    log.warn("router.died", { reason: "exit code 1" });
    log.warn("router.died", { reason: "exit code 2" });
    expect(lines).toEqual([
      "warning: a weight push waits for the router: refused",
      "  (10 times by now)",
      "  (33 times)",
      "warning: the router died: exit code 1",
      "warning: the router died: exit code 2",
    ]);
  });

  it("warns of nothing that an intended stop broke; errors stay", () => {
    let stopping = false;
    const { lines, log } = kept(() => stopping);
    log.warn("router.died", { reason: "exit code 1" });
    stopping = true;
    log.warn("router.died", { reason: "exit code 0" });
    log.error("run.failed", { during: "train of rollout 3" });
    expect(lines).toEqual(["warning: the router died: exit code 1", "error: the run failed during train of rollout 3"]);
  });
});
