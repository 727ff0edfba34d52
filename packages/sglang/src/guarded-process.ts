import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { abortable, type Clock, deadline, type Logger, type Random, SlimeError } from "@slime/core";
import { type ExitStatus, exitStatusOf, killMarked, type ProcessMark, type ProcessTable, signal, translateIoError } from "@slime/platform";

/** What runs the command for us and ends what came from it; see its own head. */
const guardFile = fileURLToPath(new URL("../python/guard.py", import.meta.url));

/** How long a guard may take to start its command (a Python's start on a machine under heavy load), and to end everything. */
const startMsMax = 30_000;
const endMsMax = 15_000;

/** Every process of a guarded tree carries it, so that what escapes the guard is still found. */
const markName = "SLIME_GUARDED_PROCESS";

export interface GuardedOptions {
  /** Runs the guard; its standard library is enough. */
  readonly python: string;
  readonly command: readonly [string, ...string[]];
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Gets stdout and stderr, appended. */
  readonly logFile: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly processes: ProcessTable;
  readonly log: Logger;
}

export interface GuardedProcess {
  /** Of the command itself. */
  readonly pid: number;
  /** Once nothing of it is left. Nulls: its guard was killed, so nobody saw how it ended. */
  readonly exited: Promise<ExitStatus>;
  /** Ends the whole tree at once and waits for it. */
  readonly kill: () => Promise<void>;
}

/**
 * Starts a command whose whole tree we own. G1 nothing that came from it lives once `exited` has settled: children that left its group or
 * its session included. G2 it ends when we do, however we end. Its output goes to a file, so that nobody waits for a pipe to close.
 * @throws SlimeError `process.start` when the Python or the command is missing; `disk.full`.
 */
export async function startGuarded(options: GuardedOptions): Promise<GuardedProcess> {
  const { clock, log, processes } = options;
  const mark: ProcessMark = { name: markName, value: Buffer.from(options.random.bytes(12)).toString("hex") };
  const guard = spawnGuard(options, mark);
  const told = reports(guard);
  const exited = new Promise<void>((resolve) => {
    guard.once("exit", () => resolve());
    guard.once("error", () => resolve());
  }).then(async (): Promise<ExitStatus> => {
    const left = await killMarked(mark, { processes, clock, graceMs: 0 });
    if (left.length > 0) log.error("process.unkillable", { pids: left, command: options.command[0] });
    const status = await told.status;
    return status === null ? { exitCode: null, signal: null } : exitStatusOf(status);
  });
  const kill = async (): Promise<void> => {
    guard.stdin?.destroy();
    using limit = deadline(clock, endMsMax, `the end of process ${guard.pid ?? 0}`);
    try {
      await abortable(exited, limit.signal);
    } catch (error) {
      log.error("process.guard_stuck", { pid: guard.pid ?? 0, reason: String(error) });
      if (guard.pid !== undefined) signal(guard.pid, "SIGKILL");
      await exited;
    }
  };
  try {
    using limit = deadline(clock, startMsMax, `the start of ${options.command.slice(0, 3).join(" ")}`);
    return { pid: await abortable(told.pid, limit.signal), exited, kill };
  } catch (error) {
    await kill();
    throw error;
  }
}

function spawnGuard(options: GuardedOptions, mark: ProcessMark): ChildProcess {
  let output: number | undefined;
  try {
    output = openSync(options.logFile, "a", 0o600);
    // -I and -S: what the server's PYTHONPATH and sitecustomize do is not the guard's business.
    const guard = spawn(options.python, ["-I", "-S", guardFile, ...options.command], {
      env: { ...options.env, [mark.name]: mark.value },
      detached: true,
      stdio: ["pipe", output, output, "pipe"],
    });
    guard.stdin?.on("error", () => {}); // it ended first
    return guard;
  } catch (error) {
    throw translateIoError(error, options.logFile);
  } finally {
    if (output !== undefined) closeSync(output);
  }
}

/** What the guard says on its fd 3. */
function reports(guard: ChildProcess): { readonly pid: Promise<number>; readonly status: Promise<number | null> } {
  const pipe = guard.stdio[3] as Readable;
  const lines = createInterface({ input: pipe });
  let sayStatus: (status: number | null) => void = () => {};
  const status = new Promise<number | null>((resolve) => (sayStatus = resolve));
  const pid = new Promise<number>((resolve, reject) => {
    const failed = (reason: string, cause?: unknown) => {
      sayStatus(null);
      const what = guard.spawnargs.slice(0, 8).join(" ");
      reject(new SlimeError("process.start", reason, { what }, { cause }));
    };
    guard.once("error", (cause) =>
      failed(`could not start ${guard.spawnfile}: ${cause.message}; --sglang-python must name a Python`, cause),
    );
    lines.on("line", (line) => {
      const said = JSON.parse(line) as { readonly pid?: number; readonly failed?: string; readonly status?: number };
      if (said.failed !== undefined) failed(`could not start ${guard.spawnargs[4] ?? ""}: ${said.failed}`);
      if (said.pid !== undefined) resolve(said.pid);
      if (said.status !== undefined) sayStatus(said.status);
    });
    lines.once("close", () =>
      failed(`${guard.spawnfile} ended before it had started ${guard.spawnargs[4] ?? ""}; is it a Python of 3.9 or newer?`),
    );
  });
  pid.catch(() => {}); // waited for by whoever starts; a later failure has been told by then
  return { pid, status };
}
