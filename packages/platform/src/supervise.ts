import { spawn } from "node:child_process";
import { type Clock, type Logger, SlimeError, sleep } from "@slime/core";
import { type ExitStatus, exitStatusOf } from "./exit-status.js";

export interface SuperviseOptions {
  readonly command: readonly [string, ...string[]];
  readonly clock: Clock;
  readonly log: Logger;
  /** Restarts within `windowMs`; one more is a crash loop. Default 5 in ten minutes. */
  readonly restartsMax?: number;
  readonly windowMs?: number;
  /** Before a restart. Default 500. */
  readonly delayMs?: number;
}

/**
 * Runs a command and starts it again whenever it was killed or crashed, until it ends by itself. SIGINT, SIGTERM and SIGHUP
 * reach it as one SIGTERM: it has a session of its own, so that a terminal's Ctrl-C does not count twice.
 * Resolves with its exit code. @throws SlimeError `process.exited` for a crash loop.
 */
export async function supervise(options: SuperviseOptions): Promise<number> {
  const { clock, log, restartsMax = 5, windowMs = 10 * 60_000, delayMs = 500 } = options;
  const restarts: number[] = [];
  let stopping = false;
  let pid: number | undefined;
  const forward = () => {
    if (pid !== undefined) process.kill(pid, "SIGTERM");
    stopping = true;
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of signals) process.on(name, forward);
  try {
    for (;;) {
      const status = await run(options.command, (started) => void (pid = started));
      pid = undefined;
      if (stopping || !crashed(status)) return status.exitCode ?? 143;
      const nowMs = clock.nowMs();
      restarts.push(nowMs);
      while ((restarts[0] ?? nowMs) < nowMs - windowMs) restarts.shift();
      if (restarts.length > restartsMax) {
        throw new SlimeError(
          "process.exited",
          `${options.command.at(-1) ?? ""} ended ${restarts.length} times in ${Math.round(windowMs / 60_000)} min, last by ${status.signal ?? `exit code ${status.exitCode}`}: see its log`,
          { what: options.command.join(" "), ...status },
        );
      }
      log.warn("daemon.restarted", { ...status, restarts: restarts.length });
      await sleep(clock, delayMs);
    }
  } finally {
    for (const name of signals) process.off(name, forward);
  }
}

/** A bug's exit code, and what the shell shows for an abort. */
const crashCodes: ReadonlySet<number> = new Set([70, 134]);

function crashed({ exitCode, signal }: ExitStatus): boolean {
  return signal !== null || (exitCode !== null && crashCodes.has(exitCode));
}

function run(command: SuperviseOptions["command"], started: (pid: number | undefined) => void): Promise<ExitStatus> {
  return new Promise((resolve, reject) => {
    const [program, ...args] = command;
    const child = spawn(program, args, { stdio: "inherit", detached: true });
    child.once("error", (cause) =>
      reject(new SlimeError("process.start", `could not start ${program}: ${cause.message}`, { what: program }, { cause })),
    );
    child.once("exit", (exitCode, signal) => resolve(signal === null ? exitStatusOf(exitCode ?? 0) : { exitCode: null, signal }));
    started(child.pid);
  });
}
