import { virtualClock } from "@slime/core/testing";
import type { ProcessTable } from "@slime/platform";
import { describe, expect, it } from "vitest";
import { watchFamily } from "./family-watch.js";

/** A process table of what `living` holds: pid → parent and command line. */
function table(living: Map<number, { readonly parentPid: number; readonly commandLine: string }>): ProcessTable {
  return {
    kind: "linux",
    bootId: async () => "boot",
    identify: async (pid) => (living.has(pid) ? { bootId: "boot", pid, startTime: "1" } : null),
    isAlive: async ({ pid }) => living.has(pid),
    list: async () => [...living].map(([pid, { parentPid }]) => ({ pid, parentPid, groupId: 1, startTime: "1" })),
    marked: async () => [],
    commandLine: async (pid) => living.get(pid)?.commandLine ?? null,
    activity: async () => null,
  };
}

describe("a family of processes", () => {
  const start = () => {
    const living = new Map([
      [1, { parentPid: 0, commandLine: "python -m sglang.launch_server" }],
      [2, { parentPid: 1, commandLine: "sglang::data_parallel_controller" }],
      [3, { parentPid: 2, commandLine: "sglang::scheduler_DP1_TP0" }],
      [4, { parentPid: 3, commandLine: "nvcc kernel.cu" }],
      [9, { parentPid: 0, commandLine: "sglang::scheduler_TP0" }],
    ]);
    const ended: number[] = [];
    const clock = virtualClock();
    const watch = watchFamily({
      pid: 1,
      processes: table(living),
      clock,
      isVital: (line) => line.startsWith("sglang::"),
      onEnd: ({ pid }) => void ended.push(pid),
    });
    return { living, ended, clock, watch };
  };

  it("tells the end of a vital grandchild within a second, once", async () => {
    const { living, ended, clock, watch } = start();
    expect(await watch.look()).toBe(2);
    living.delete(3);
    await clock.run(1_000);
    expect(ended).toEqual([3]);
    living.delete(2);
    await clock.run(10_000);
    expect(ended).toEqual([3]);
    expect(clock.pending()).toBe(0);
  });

  it("does not mind what is not vital, and not what is not below", async () => {
    const { living, ended, clock, watch } = start();
    await watch.look();
    living.delete(4);
    living.delete(9);
    await clock.run(10_000);
    expect(ended).toEqual([]);
    watch[Symbol.dispose]();
    living.clear();
    await clock.run(10_000);
    expect(ended).toEqual([]);
  });

  it("knows a member that came later", async () => {
    const { living, ended, clock } = start();
    await clock.run(1_000);
    living.set(5, { parentPid: 1, commandLine: "sglang::detokenizer" });
    await clock.run(6_000);
    living.delete(5);
    await clock.run(1_000);
    expect(ended).toEqual([5]);
  });
});
