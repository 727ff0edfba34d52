import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { silentLogger, systemClock } from "@slime/core";
import { describe, expect, it } from "vitest";
import { describeDeath, type ExitStatus } from "./exit-status.js";
import { exitWatcher } from "./exit-watch.js";
import { exists, killMarked, killTree, signal } from "./kill-tree.js";
import { type Launched, launch } from "./launch.js";
import { acquireLock } from "./lock.js";
import type { Platform } from "./platform.js";
import { supervise } from "./supervise.js";
import { temporaryDirectory, testedPlatforms, until } from "./testing/index.js";

const node = process.execPath;

/** A process under test with everything that belongs to it. */
async function start(platform: Platform, root: string, script: string) {
  const dir = join(root, randomUUID());
  await mkdir(dir);
  const logs = { stdout: join(dir, "out"), stderr: join(dir, "err") };
  const mark = { name: "SLIME_PROCESS_ID", value: randomUUID() };
  const env = { PATH: process.env["PATH"] ?? "", [mark.name]: mark.value };
  const launched = await launch({
    processes: platform.processes,
    clock: systemClock,
    dir,
    command: [node, "-e", script],
    env,
    cwd: dir,
    logs,
  });
  return { launched, logs, mark, out: () => readFileSync(logs.stdout, "utf8") };
}

function exitOf(platform: Platform, launched: Launched | Omit<Launched, "parentEnded">): Promise<ExitStatus> {
  const watcher = exitWatcher({ processes: platform.processes, clock: systemClock, pollMs: 20, tableMs: 100 });
  return new Promise<ExitStatus>((resolve) => watcher.watch(launched, resolve)).finally(() => watcher[Symbol.dispose]());
}

const forever = "setInterval(() => {}, 1000); console.log('up')";
const deaf = `process.on('SIGTERM', () => {}); ${forever}`;
/** A child in a session of its own, which a signal to the group does not reach. */
const withRunaway = `require('child_process').spawn(process.execPath, ['-e', "console.log('up'); setInterval(()=>{},1000)"], { detached: true, stdio: 'inherit' }).unref(); setInterval(() => {}, 1000)`;

describe.each(testedPlatforms())("processes, %s", (_kind, platform) => {
  const { processes } = platform;
  const kill = { processes, clock: systemClock };

  it("knows a process by boot, pid and start time (P1)", async () => {
    const self = await processes.identify(process.pid);
    expect(self?.pid).toBe(process.pid);
    if (self === null) return;
    expect(await processes.isAlive(self)).toBe(true);
    expect(await processes.isAlive({ ...self, bootId: "another" })).toBe(false);
    const other = self.startTime.includes(":") ? "Thu Jan  1 00:00:00 1970" : "1";
    expect(await processes.isAlive({ ...self, startTime: other })).toBe(false);
    expect(await processes.identify(2 ** 22 + 1)).toBeNull();
    expect(await processes.commandLine(process.pid)).toContain("node");
    expect(await processes.commandLine(2 ** 22 + 1)).toBeNull();
  });

  it.each([
    ["process.exit(7)", { exitCode: 7, signal: null }],
    ["process.kill(process.pid, 'SIGSEGV')", { exitCode: null, signal: "SIGSEGV" }],
    ["", { exitCode: 0, signal: null }],
  ])("says how %s ended, to whoever reads the exit file", async (script, wanted) => {
    await using root = await temporaryDirectory();
    const { launched } = await start(platform, root.path, script);
    const { parentEnded: _, ...adopted } = launched;
    expect(await exitOf(platform, adopted)).toEqual(wanted);
    expect(await processes.isAlive(launched.identity)).toBe(false);
  });

  it("reports a process whose parent died with it as gone", async () => {
    await using root = await temporaryDirectory();
    const { launched, out } = await start(platform, root.path, forever);
    await until("output", () => out().includes("up"));
    const exited = exitOf(platform, launched);
    signal(launched.parent.pid, "SIGKILL");
    signal(launched.identity.pid, "SIGKILL");
    expect(await exited).toEqual({ exitCode: null, signal: null });
  });

  it("ends a tree politely, and the parent still writes the status", async () => {
    await using root = await temporaryDirectory();
    const { launched, mark, out } = await start(platform, root.path, forever);
    await until("output", () => out().includes("up"));
    expect(await killTree({ ...launched, mark }, { ...kill, graceMs: 5_000 })).toEqual([]);
    expect(await exitOf(platform, launched)).toEqual({ exitCode: null, signal: "SIGTERM" });
  });

  it("kills what ignores SIGTERM once its grace is over", async () => {
    await using root = await temporaryDirectory();
    const { launched, mark, out, logs } = await start(platform, root.path, deaf);
    await until("output", () => out().includes("up"));
    expect(await killTree({ ...launched, mark }, { ...kill, graceMs: 100 })).toEqual([]);
    expect(await exitOf(platform, launched)).toEqual({ exitCode: null, signal: "SIGKILL" });
    expect(readFileSync(logs.stderr, "utf8")).toBe("");
  });

  it("finds by its mark a grandchild that left the group, also after its parents died", async () => {
    await using root = await temporaryDirectory();
    const { launched, mark, out } = await start(platform, root.path, withRunaway);
    await until("output", () => out().includes("up"));
    signal(launched.identity.pid, "SIGKILL");
    await exitOf(platform, launched);
    expect((await processes.marked(mark)).length).toBe(1);
    expect(await killMarked(mark, { ...kill, graceMs: 0 })).toEqual([]);
    expect(await processes.marked(mark)).toEqual([]);
  });

  it("tells a stopped process from one that computes", async () => {
    await using root = await temporaryDirectory();
    const { launched, mark, out } = await start(platform, root.path, "console.log('up'); for (;;);");
    await until("output", () => out().includes("up"));
    const before = (await processes.activity(launched.identity.pid))?.cpuMs ?? 0;
    await until("processor time", async () => ((await processes.activity(launched.identity.pid))?.cpuMs ?? 0) > before);
    signal(launched.identity.pid, "SIGSTOP");
    await until("the stop", async () => (await processes.activity(launched.identity.pid))?.stopped);
    expect(await killTree({ ...launched, mark }, { ...kill, graceMs: 0 })).toEqual([]);
  });

  it("refuses a held lock by its owner's pid, and takes over a dead one's (P1)", async () => {
    await using root = await temporaryDirectory();
    const path = join(root.path, "lock");
    const lock = await acquireLock(path, "a test", processes);
    await expect(acquireLock(path, "another", processes)).rejects.toThrow(new RegExp(`a test \\(pid ${process.pid}\\)`));
    await lock.release();
    await using held = await acquireLock(path, "another", processes);
    expect(held.path).toBe(path);
  });
});

describe("a process that cannot start", () => {
  const platform = (testedPlatforms()[0] as readonly [string, Platform])[1];
  it("ends with 127 and its stderr says why", async () => {
    await using root = await temporaryDirectory();
    const logs = { stdout: join(root.path, "out"), stderr: join(root.path, "err") };
    const launched = await launch({
      processes: platform.processes,
      clock: systemClock,
      dir: root.path,
      command: ["/no/such/program"],
      env: {},
      cwd: root.path,
      logs,
    });
    const status = await exitOf(platform, launched);
    const death = await describeDeath({ status, stderr: logs.stderr, oomKills: { before: 0, after: 0 }, killedByUs: false });
    expect(death).toMatchObject({ exitCode: 127, oom: false, message: "exit code 127: the command was not found" });
    expect(death.stderrTail.join()).toMatch(/no\/such\/program/);
  });
  it("is a named failure when its directory is missing", async () => {
    await using root = await temporaryDirectory();
    const logs = { stdout: join(root.path, "out"), stderr: join(root.path, "err") };
    const starting = launch({
      processes: platform.processes,
      clock: systemClock,
      dir: root.path,
      command: ["true"],
      env: {},
      cwd: "/no/such/dir",
      logs,
    });
    await expect(starting).rejects.toMatchObject({ code: "process.start" });
  });
});

describe.runIf(process.platform === "linux")("a zombie", () => {
  it.each(testedPlatforms())("is not alive (P2), %s", async (_kind, { processes }) => {
    // The shell's child ends at once; the sleep that took the shell's place never waits for it.
    const parent = spawn("/bin/sh", ["-c", "sleep 0.2 & echo $!; exec sleep 1000"], { stdio: ["ignore", "pipe", "ignore"] });
    try {
      const pid = Number(await new Promise<string>((resolve) => parent.stdout.once("data", (data: Buffer) => resolve(data.toString()))));
      await until("its end", async () => (await processes.identify(pid)) === null);
      expect(exists(pid)).toBe(true); // a signal would reach it
      expect((await processes.list()).some((entry) => entry.pid === pid)).toBe(false);
    } finally {
      parent.kill("SIGKILL");
    }
  });
});

describe("supervise", () => {
  const options = { clock: systemClock, log: silentLogger, delayMs: 1, restartsMax: 2 };
  it("starts again what was killed, and ends with what ends by itself", async () => {
    await using root = await temporaryDirectory();
    const once = join(root.path, "once");
    const script = `test -e ${once} && exit 3; : > ${once}; kill -9 $$`;
    expect(await supervise({ ...options, command: ["/bin/sh", "-c", script] })).toBe(3);
  });
  it("gives a crash loop up", async () => {
    await expect(supervise({ ...options, command: ["/bin/sh", "-c", "exit 70"] })).rejects.toThrow(/ended 3 times/);
  });
});
