import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Clock, SlimeError, sleep } from "@slime/core";
import { translateIoError } from "./io-errors.js";
import type { ProcessIdentity, ProcessTable } from "./process-table.js";

/**
 * The parent of every process we own: a shell that starts it, waits, and writes its exit status, so that the status
 * survives whichever daemon was there. It leads the process group and outlives signals sent to the group; the process gets
 * default handlers, because a trap (other than an ignored signal) is not inherited. $0: pid file, $1: exit file, then the command.
 * The inner shell says its pid and becomes the command. The outer one's own stderr is closed: it would write "Killed" among the process's last words.
 */
const parentScript = `trap : HUP INT QUIT TERM USR1 USR2
e=$1
shift
exec 3>&2 2>/dev/null
(exec 2>&3 3>&-; exec /bin/sh -c 'echo $$ > "$0" && exec "$@"' "$0" "$@")
s=$?
echo $s > "$e.tmp" && mv -f "$e.tmp" "$e"
`;

/** How long a started shell may take to say its child's pid; two execs of /bin/sh on a machine under heavy load. */
const pidMsMax = 15_000;

export interface LaunchOptions {
  readonly processes: ProcessTable;
  readonly clock: Clock;
  /** An existing directory of this process alone: `pid` and `exit` are written there. */
  readonly dir: string;
  readonly command: readonly [string, ...string[]];
  /** The whole environment, marks included. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Append-only files; both may be the same. */
  readonly logs: { readonly stdout: string; readonly stderr: string };
}

export interface Launched {
  readonly identity: ProcessIdentity;
  readonly parent: ProcessIdentity;
  readonly exitFile: string;
  /** Settles when the waiting shell ended, while we live; an adopted process has no such promise. */
  readonly parentEnded: Promise<void>;
}

/** The file an exit status is written to, within the directory of a process. */
export function exitFileIn(dir: string): string {
  return join(dir, "exit");
}

/**
 * Starts a process that outlives us: a session and group of its own, no pipes.
 * A command that cannot be found is not an error here: the process ends with 127 and says why on stderr.
 * @throws SlimeError `process.start`, `disk.full`.
 */
export async function launch(options: LaunchOptions): Promise<Launched> {
  const what = options.command.join(" ").slice(0, 200);
  const exitFile = exitFileIn(options.dir);
  const pidFile = join(options.dir, "pid");
  const shell = startShell(options, pidFile, exitFile);
  let ended = false;
  const parentEnded = new Promise<void>((resolve) => shell.once("exit", () => resolve())).then(() => void (ended = true));
  const parentPid = await new Promise<number>((resolve, reject) => {
    shell.once("error", (cause) =>
      reject(new SlimeError("process.start", `could not start ${what} in ${options.cwd}: ${cause.message}`, { what }, { cause })),
    );
    shell.once("spawn", () => resolve(shell.pid ?? 0));
  });
  shell.unref();
  const parent = await identityOf(parentPid, options.processes);
  const pid = await pidFrom(pidFile, options.clock, () => ended);
  if (pid === null) {
    if (!ended) shell.kill("SIGKILL");
    throw new SlimeError("process.start", `${what} ended before it could be recorded; see ${options.logs.stderr}`, { what });
  }
  return { identity: await identityOf(pid, options.processes), parent, exitFile, parentEnded };
}

/** A process may be gone already: then its identity is one that no living process has. */
async function identityOf(pid: number, processes: ProcessTable): Promise<ProcessIdentity> {
  return (await processes.identify(pid)) ?? { bootId: await processes.bootId(), pid, startTime: "ended" };
}

function startShell(options: LaunchOptions, pidFile: string, exitFile: string): ChildProcess {
  let stdout: number | undefined;
  let stderr: number | undefined;
  try {
    stdout = openSync(options.logs.stdout, "a", 0o600);
    stderr = options.logs.stderr === options.logs.stdout ? stdout : openSync(options.logs.stderr, "a", 0o600);
    return spawn("/bin/sh", ["-c", parentScript, pidFile, exitFile, ...options.command], {
      cwd: options.cwd,
      env: { ...options.env },
      detached: true,
      stdio: ["ignore", stdout, stderr],
    });
  } catch (error) {
    throw translateIoError(error, options.logs.stderr);
  } finally {
    if (stdout !== undefined) closeSync(stdout);
    if (stderr !== undefined && stderr !== stdout) closeSync(stderr);
  }
}

async function pidFrom(pidFile: string, clock: Clock, ended: () => boolean): Promise<number | null> {
  const until = clock.nowMs() + pidMsMax;
  for (let waitMs = 1; ; waitMs = Math.min(20, waitMs * 2)) {
    const wasEnded = ended();
    const text = readIfThere(pidFile);
    if (text?.endsWith("\n") === true) return Number(text);
    if (wasEnded || clock.nowMs() > until) return null;
    await sleep(clock, waitMs);
  }
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}
