import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { silentLogger, systemClock } from "@slime/core";
import { exists, type Platform, signal } from "@slime/platform";
import { temporaryDirectory, testedPlatforms, until } from "@slime/platform/testing";
import { describe, expect, it } from "vitest";
import { type ServerSpec, serverCommand } from "./server-command.js";
import { type StartServerParts, startServer } from "./start-server.js";
import { freePort } from "./testing/free-port.js";

const fakeSglang = fileURLToPath(new URL("./testing/fake-sglang", import.meta.url));
const python = "python3";
const textIn = (path: string) => (existsSync(path) ? readFileSync(path, "utf8") : "");
const schedulerPid = (parts: { readonly logFile: string }) => Number(/scheduler=(\d+)/.exec(textIn(parts.logFile))?.[1]);
const daemonOf = (root: string) => until("the daemon", () => Number(textIn(join(root, "daemon"))) || null);

/** A stand-in for SGLang that behaves as `words` say. */
async function fake(root: string, words: string, platform: Platform, more: Partial<StartServerParts & ServerSpec> = {}) {
  const spec: ServerSpec = {
    python,
    modelPath: "/models/tiny",
    host: "127.0.0.1",
    port: await freePort(),
    args: { skip_server_warmup: true },
    env: { PYTHONPATH: fakeSglang, FAKE_SGLANG: words, FAKE_SGLANG_DAEMON_PID: join(root, "daemon"), ...more.env },
    gpuUuids: [],
    node: { rank: 0, count: 1, distInitAddress: null },
  };
  const phases: string[] = [];
  const parts: StartServerParts = {
    clock: systemClock,
    log: silentLogger,
    logFile: join(root, "server.log"),
    inherited: { PATH: process.env["PATH"] },
    processes: platform.processes,
    onPhase: (phase) => void phases.push(phase),
    ...more,
  };
  return { spec, parts, phases };
}

describe.each(testedPlatforms())("a server, %s", (_kind, platform) => {
  it("is ready once it generates, says what it does meanwhile, and ends whole (T1, T4)", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts, phases } = await fake(root.path, "slow,daemon", platform);
    const server = await startServer(spec, parts);
    expect(server.url).toBe(`http://127.0.0.1:${spec.port}`);
    expect(phases[0]).toBe("starting");
    expect(phases.at(-1)).toBe("ready");
    expect(phases).toContain("loading weights 2/3");
    const daemon = await daemonOf(root.path);
    expect(exists(daemon)).toBe(true);
    const scheduler = schedulerPid(parts);
    await server.kill();
    expect(await server.exited).toMatchObject({ reason: "killed by its owner" });
    expect([server.pid, scheduler, daemon].filter(exists)).toEqual([]);
  });

  it("ends when its scheduler does, and says so (T3)", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "", platform);
    await using server = await startServer(spec, parts);
    await until("the scheduler to be known", () => schedulerPid(parts) || null);
    signal(schedulerPid(parts), "SIGKILL");
    const { reason } = await server.exited;
    expect(reason).toContain(`its process sglang::scheduler_TP0 (pid ${schedulerPid(parts)}) ended`);
    expect(exists(server.pid)).toBe(false);
  });
});

describe("a server", () => {
  const platform = (testedPlatforms()[0] as readonly [string, Platform])[1];

  it("that ends by itself is gone whole, with its status", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "daemon", platform);
    await using server = await startServer(spec, parts);
    const daemon = await daemonOf(root.path);
    signal(server.pid, "SIGKILL");
    expect(await server.exited).toMatchObject({ signal: "SIGKILL" });
    expect([daemon, schedulerPid(parts)].filter(exists)).toEqual([]);
  });

  it("ends whole with a signal to its guard, as a host that ends its children sends one", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "daemon", platform);
    await using server = await startServer(spec, parts);
    const daemon = await daemonOf(root.path);
    const guard = (await platform.processes.list()).find(({ pid }) => pid === server.pid)?.parentPid ?? 0;
    signal(guard, "SIGTERM");
    expect(await server.exited).toMatchObject({ signal: "SIGKILL" });
    expect([daemon, server.pid, schedulerPid(parts)].filter(exists)).toEqual([]);
  });

  it.runIf(process.platform === "linux")("ends whole when its guard is killed", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "daemon", platform);
    await using server = await startServer(spec, parts);
    const daemon = await daemonOf(root.path);
    const guard = (await platform.processes.list()).find(({ pid }) => pid === server.pid)?.parentPid ?? 0;
    signal(guard, "SIGKILL");
    expect(await server.exited).toMatchObject({ exitCode: null, signal: null });
    await until("the end of all", () => ![daemon, server.pid, schedulerPid(parts)].some(exists), 3_000);
  });

  it("that dies early fails with the cause, the fix and its last lines (T2)", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "crash-at-load,daemon", platform, {
      env: {
        PYTHONPATH: fakeSglang,
        FAKE_SGLANG: "crash-at-load,daemon",
        FAKE_SGLANG_WORDS: "torch.OutOfMemoryError: CUDA out of memory. Tried",
      },
    });
    const starting = startServer(spec, parts);
    await expect(starting).rejects.toMatchObject({ code: "config.invalid" });
    await expect(starting).rejects.toThrow(/while loading weights 1\/3.*lower --sglang-mem-fraction-static.*Tried/s);
    expect(exists(schedulerPid(parts))).toBe(false);
  });

  it("that goes on no more is given up on silence, and nothing is left (R2, T2)", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "silent", platform, { startSilenceMsMax: 800 });
    const starting = startServer(spec, parts);
    await expect(starting).rejects.toMatchObject({ code: "stalled" });
    expect(exists(schedulerPid(parts))).toBe(false);
  });
});

describe("a server that cannot start", () => {
  const platform = (testedPlatforms()[0] as readonly [string, Platform])[1];
  it.each([
    ["no sglang in that Python", { PYTHONPATH: "/nowhere" }, "config.invalid", /has no sglang: install it there, or point --sglang-python/],
    [
      "a flag it does not know",
      { FAKE_SGLANG: "crash:launch_server.py: error: unrecognized arguments: --mem-fractoin 0.3" },
      "config.invalid",
      /--mem-fractoin 0\.3/,
    ],
    ["a cause we do not know", { FAKE_SGLANG: "crash:RuntimeError: strange" }, "process.exited", /exit code 1.*RuntimeError: strange/s],
  ])("%s", async (_what, env, code, words) => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "", platform);
    const starting = startServer({ ...spec, env: { ...spec.env, ...env } }, parts);
    await expect(starting).rejects.toMatchObject({ code });
    await expect(starting).rejects.toThrow(words);
  });

  it("names a Python that is not there", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "", platform);
    await expect(startServer({ ...spec, python: "/no/python" }, parts)).rejects.toThrow(/process\.start.*\/no\/python.*--sglang-python/);
  });

  it("names a port that is taken", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "", platform);
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(spec.port, spec.host, resolve));
    await expect(startServer(spec, parts)).rejects.toMatchObject({ code: "port.taken" });
    await new Promise<void>((resolve) => holder.close(() => resolve()));
  });

  it("is given up with its owner's signal", async () => {
    await using root = await temporaryDirectory();
    const { spec, parts } = await fake(root.path, "silent", platform);
    const controller = new AbortController();
    const starting = startServer(spec, { ...parts, signal: controller.signal });
    await until("the scheduler", () => schedulerPid(parts) || null).catch(() => {});
    controller.abort(new Error("the run is over"));
    await expect(starting).rejects.toThrow("the run is over");
    expect(exists(schedulerPid(parts))).toBe(false);
  });
});

describe.runIf(process.platform === "linux")("the owner's death", () => {
  it("ends the server, its scheduler and what left them (T4)", async () => {
    await using root = await temporaryDirectory();
    const platform = (testedPlatforms()[0] as readonly [string, Platform])[1];
    const { spec } = await fake(root.path, "daemon", platform);
    const { argv, env } = serverCommand(spec, { PATH: process.env["PATH"] });
    const guard = fileURLToPath(new URL("../python/guard.py", import.meta.url));
    // An owner that is killed: a shell with the guard's stdin in its hand.
    const script = `const { spawn } = require("node:child_process"); const fs = require("node:fs");
      const log = fs.openSync(${JSON.stringify(join(root.path, "server.log"))}, "a");
      spawn(${JSON.stringify(argv[0])}, ["-I", "-S", ${JSON.stringify(guard)}, ...${JSON.stringify(argv)}], { env: ${JSON.stringify(env)}, detached: true, stdio: ["pipe", log, log, "pipe"] });
      setInterval(() => {}, 1000);`;
    const owner = spawn(process.execPath, ["-e", script], { stdio: "ignore" });
    const parts = { logFile: join(root.path, "server.log") };
    const daemon = await daemonOf(root.path);
    const scheduler = await until("the scheduler", () => schedulerPid(parts) || null);
    owner.kill("SIGKILL");
    await until("the end of all", () => ![daemon, scheduler].some(exists), 3_000);
  });
});
