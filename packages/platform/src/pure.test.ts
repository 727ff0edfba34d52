import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SlimeError, seededRandom, silentLogger } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { describeDeath, exitStatusOf, lastWords } from "./exit-status.js";
import { lastLines, writeFileAtomic } from "./files.js";
import { readGpus, realGpus, virtualGpus } from "./gpus.js";
import { translateIoError } from "./io-errors.js";
import { childrenFirst } from "./kill-tree.js";
import { carriesMark, parseStat } from "./linux-processes.js";
import { machineLimits } from "./machine.js";
import { cgroupPath, parseOomKills } from "./oom.js";
import { detectPlatform } from "./platform.js";
import { parseCpuTime, parsePsRow } from "./portable-processes.js";
import { portLeases } from "./ports.js";
import { runCommand } from "./run-command.js";
import { runDaemon } from "./run-daemon.js";
import { temporaryDirectory } from "./testing/index.js";

describe("what the system says", () => {
  it("reads a stat line whatever the name holds", () => {
    const rest = "1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 98765 1 1";
    expect(parseStat(`12 (a) b) (c) S ${rest}`)).toEqual({
      pid: 12,
      parentPid: 1,
      groupId: 7,
      startTime: "98765",
      state: "S",
      cpuTicks: 200,
    });
    expect(parseStat("")).toBeNull();
    expect(parseStat("12 (cut")).toBeNull();
  });
  it("finds a mark only as a whole entry", () => {
    const mark = { name: "A", value: "x1" };
    expect(carriesMark(Buffer.from("B=2\0A=x1\0"), mark)).toBe(true);
    expect(carriesMark(Buffer.from("A=x1"), mark)).toBe(true);
    expect(carriesMark(Buffer.from("AA=x1\0A=x12\0B=A=x1\0"), mark)).toBe(false);
  });
  it("reads rows of ps", () => {
    expect(parsePsRow("  12     1    12 Ss   01:02 Sun Nov 22 15:00:24 2026")).toEqual({
      pid: 12,
      parentPid: 1,
      groupId: 12,
      state: "Ss",
      cpuMs: 62_000,
      startTime: "Sun Nov 22 15:00:24 2026",
    });
    expect(parsePsRow("")).toBeNull();
    expect(["00:01", "1:00:00", "2-00:00:00", "0:01.50"].map(parseCpuTime)).toEqual([1000, 3_600_000, 172_800_000, 1500]);
  });
  it("reads control groups", () => {
    const own = "4:memory:/jobs/a\n1:cpu,cpuacct:/b\n0::/c\n";
    expect([cgroupPath(own, "memory"), cgroupPath(own, "cpu"), cgroupPath(own, ""), cgroupPath(own, "pids")]).toEqual([
      "/jobs/a",
      "/b",
      "/c",
      null,
    ]);
    expect([parseOomKills("low 0\noom_kill 3\n"), parseOomKills("")]).toEqual([3, null]);
    const files: Record<string, string> = {
      "/proc/self/cgroup": "0::/c\n",
      "/sys/fs/cgroup/c/cpu.max": "50000 100000\n",
      "/sys/fs/cgroup/c/memory.max": String(2 ** 28),
    };
    expect(machineLimits("linux", (path) => files[path] ?? null)).toEqual({ cpus: 1, memoryMib: 256 });
    expect(machineLimits("linux", () => null)).toEqual(machineLimits("portable"));
  });
  it("reads nvidia-smi, with what a driver does not know as 0", async () => {
    expect(await realGpus(async () => "0, GPU-a, NVIDIA H100, 81559\n1, GPU-b, NVIDIA H100, 81559\n")).toEqual([
      { index: 0, uuid: "GPU-a", name: "NVIDIA H100", memoryMib: 81559, virtual: false },
      { index: 1, uuid: "GPU-b", name: "NVIDIA H100", memoryMib: 81559, virtual: false },
    ]);
    expect(await readGpus(async () => "0, 50, 100, [N/A]\n")).toEqual([{ index: 0, utilisation: 0.5, memoryUsedMib: 100, powerWatts: 0 }]);
    expect(await realGpus(async () => null)).toEqual([]);
    expect(virtualGpus(1, "node_6f2c01d4e8a97b35")[0]?.uuid).toBe("VIRTUAL-6f2c01d4e8a97b35-0");
  });
  it("refuses an unknown platform by name", () => {
    expect(() => detectPlatform({ SLIME_PLATFORM: "windows" })).toThrow(/"windows"/);
    expect(detectPlatform({ SLIME_PLATFORM: "portable" }).kind).toBe("portable");
  });
});

describe("the order of a kill", () => {
  it("names each descendant once, and no parent before its child", () => {
    const tree = fc
      .array(fc.nat(), { minLength: 1, maxLength: 40 })
      .map((picks) => picks.map((pick, i) => ({ pid: i + 2, parentPid: i === 0 ? 1 : (pick % i) + 2, groupId: 0, startTime: "" })));
    fc.assert(
      fc.property(tree, (all) => {
        const order = childrenFirst(all, new Set([2]));
        expect([...order].sort((a, b) => a - b)).toEqual(all.map((entry) => entry.pid));
        for (const { pid, parentPid } of all) if (parentPid !== 1) expect(order.indexOf(pid)).toBeLessThan(order.indexOf(parentPid));
      }),
    );
  });
  it("leaves strangers alone", () => {
    const entry = (pid: number, parentPid: number) => ({ pid, parentPid, groupId: 0, startTime: "" });
    expect(childrenFirst([entry(5, 1), entry(6, 5), entry(7, 1)], new Set([5]))).toEqual([6, 5]);
  });
});

describe("how it died", () => {
  const evidence = { stderr: "/none", oomKills: { before: 1, after: 2 }, killedByUs: false };
  it.each([
    [{ ...evidence, status: exitStatusOf(137) }, true, /out-of-memory/],
    [{ ...evidence, status: exitStatusOf(137), killedByUs: true }, false, /sent by its daemon/],
    [{ ...evidence, status: exitStatusOf(137), oomKills: { before: 2, after: 2 } }, false, /killed by SIGKILL$/],
    [{ ...evidence, status: exitStatusOf(139) }, false, /SIGSEGV/],
    [{ ...evidence, status: exitStatusOf(3) }, false, /exit code 3/],
    [{ ...evidence, status: { exitCode: null, signal: null } }, false, /nobody was left/],
  ])("case %#", async (given, oom, message) => {
    const death = await describeDeath(given);
    expect(death.oom).toBe(oom);
    expect(death.message).toMatch(message);
  });
  it.each<[readonly string[], string | null]>([
    [["ready", "Error: boom", "    at f (file:///a.js:1:2)", "", "Node.js v20.20.1"], "Error: boom"],
    [
      ["throw new Error('x')", "      ^", "", "TypeError: x is not a function", "    at a (b:1:1) {", "  code: 'E'", "}"],
      "TypeError: x is not a function",
    ],
    [["  ", "    at f"], null],
    [[], null],
  ])("its last words, %#", (lines, words) => expect(lastWords(lines)).toBe(words));
  it("reads an exhausted heap from stderr", async () => {
    await using dir = await temporaryDirectory();
    const stderr = join(dir.path, "err");
    await writeFile(stderr, "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory\n");
    expect(await describeDeath({ ...evidence, stderr, status: exitStatusOf(134) })).toMatchObject({ oom: true, signal: "SIGABRT" });
  });
});

describe("files", () => {
  it("gives the last lines of a long log", async () => {
    await using dir = await temporaryDirectory();
    const path = join(dir.path, "log");
    await writeFile(path, `${Array.from({ length: 50_000 }, (_, i) => `line ${i}`).join("\n")}\n\n`);
    expect(await lastLines(path, 2)).toEqual(["line 49998", "line 49999"]);
    expect(await lastLines(join(dir.path, "none"))).toEqual([]);
  });
  it("translates a full disk, and nothing else", () => {
    const full = translateIoError(Object.assign(new Error("no space"), { code: "ENOSPC" }), "/state/x", 12);
    expect(SlimeError.is(full, "disk.full") && full.details).toEqual({ path: "/state/x", needed: 12 });
    const other = Object.assign(new Error("no"), { code: "EACCES" });
    expect(translateIoError(other, "/state/x")).toBe(other);
  });
  it("leaves nothing half-written when a write fails", async () => {
    await using dir = await temporaryDirectory();
    await expect(writeFileAtomic(join(dir.path, "no", "file"), "x")).rejects.toThrow(/ENOENT/);
    await writeFileAtomic(join(dir.path, "file"), "x");
    await writeFileAtomic(join(dir.path, "file"), "y");
    expect(await lastLines(join(dir.path, "file"))).toEqual(["y"]);
  });
});

describe("port leases", () => {
  it("never give one port to two daemons, and free a dead life's", async () => {
    await using dir = await temporaryDirectory();
    const open = (lessor: string) => portLeases(dir.path, lessor, { random: seededRandom(7), keep: (holder) => holder === "actor_b" });
    const one = await open("one");
    const a = await one.lease("actor_a", 2);
    const b = await (await open("two")).lease("actor_a", 2);
    expect(new Set([...a, ...b]).size).toBe(4);
    const c = await one.lease("actor_b", 1);
    expect([...(await open("one")).held().keys()]).toEqual(c);
    expect((await open("one")).release("actor_b")).toEqual(c);
  });
});

describe("runDaemon", () => {
  function host() {
    const handlers = new Map<string, (argument: unknown) => void>();
    const exits: number[] = [];
    const fake = {
      on: (name: string, run: (argument: unknown) => void) => handlers.set(name, run),
      off: (name: string) => handlers.delete(name),
      exit: (code: number) => exits.push(code),
    };
    return { host: fake as unknown as NodeJS.Process, exits, fire: (name: string, argument: unknown) => handlers.get(name)?.(argument) };
  }
  it("ends orderly at the first signal, and at once at the second", async () => {
    const { host: fake, exits, fire } = host();
    const running = runDaemon("x", async ({ stopped }) => void (await stopped), { log: silentLogger, host: fake });
    fire("SIGTERM", "SIGTERM");
    await running;
    expect(exits).toEqual([0]);
    const again = host();
    void runDaemon("x", () => new Promise(() => {}), { log: silentLogger, host: again.host });
    again.fire("SIGINT", "SIGINT");
    again.fire("SIGINT", "SIGINT");
    expect(again.exits).toEqual([130]);
  });
  it("exits with the code of the failure's class, and 70 for a bug", async () => {
    const { host: fake, exits, fire } = host();
    const failures: unknown[] = [];
    const options = { log: silentLogger, host: fake, onFailure: (error: unknown) => void failures.push(error) };
    await runDaemon("x", async () => Promise.reject(new SlimeError("head.unavailable", "no head", { address: "a" })), options);
    void runDaemon("x", () => new Promise(() => {}), options);
    fire("unhandledRejection", new Error("bug"));
    expect(exits).toEqual([69, 70]);
    expect(failures.length).toBe(2);
  });
});

describe("runCommand", () => {
  it("says what failed and exits with its class, or with a parser's own code", async () => {
    const said: string[] = [];
    const exits: number[] = [];
    const host = { write: (text: string) => void said.push(text), exit: (code: number) => void exits.push(code) };
    await runCommand("x", async () => {}, { host });
    await runCommand("x", () => Promise.reject(new SlimeError("not_found", "no y", { kind: "y", id: "1" })), { host });
    await runCommand("x", () => Promise.reject(new Error("parser")), { host, exitCodeOf: () => 2 });
    expect([exits, said]).toEqual([[66, 2], ["x: [not_found] no y\n"]]);
  });
});
