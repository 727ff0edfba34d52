import { factsOf, type Logger, SlimeError } from "@slime/core";

export interface DaemonContext {
  readonly log: Logger;
  /** Settles with the signal's name at the first SIGTERM or SIGINT, or with what `stop` was given. */
  readonly stopped: Promise<string>;
  /** Aborts at the same moment. */
  readonly signal: AbortSignal;
  /** Asks for the orderly end from within: `stop("the head said so")`. */
  readonly stop: (reason: string) => void;
}

export interface RunDaemonOptions {
  readonly log: Logger;
  /** Called with a failure that ends the daemon, for people; default: the message on stderr. */
  readonly onFailure?: (error: unknown) => void;
  /** Seams for tests; default: this process. */
  readonly host?: Pick<NodeJS.Process, "on" | "off" | "exit">;
}

/** A closed terminal is a wish to stop too, but only where there is one: under nohup nothing is. */
const signals = { SIGTERM: 143, SIGINT: 130, ...(process.stderr.isTTY ? { SIGHUP: 129 } : {}) } as const;

/**
 * Runs a daemon's `main` to its end, then exits: 0 when it returns, else the exit code of the failure's class.
 * The first SIGTERM or SIGINT (or SIGHUP of its terminal) settles `stopped`; a second one exits at once with 143 or 130.
 * A rejection that nobody handles is a bug: it is logged and ends the process, because what it left half-done is unknown (exit 70).
 */
export async function runDaemon(
  name: string,
  main: (context: DaemonContext) => Promise<number | void>,
  options: RunDaemonOptions,
): Promise<void> {
  const { log, host = process, onFailure = toStderr } = options;
  const controller = new AbortController();
  const stopped = withResolvers<string>();
  const stop = (reason: string) => {
    if (controller.signal.aborted) return;
    controller.abort(new SlimeError("call.cancelled", `${name} stops: ${reason}`, { what: name }));
    stopped.resolve(reason);
  };
  const onSignal = (signal: NodeJS.Signals) => {
    if (controller.signal.aborted) host.exit(signals[signal as keyof typeof signals] ?? 1);
    stop(signal);
  };
  const onBug = (error: unknown) => {
    log.error("daemon.crashed", { name, error });
    onFailure(error);
    host.exit(70);
  };
  for (const signal of Object.keys(signals)) host.on(signal, onSignal);
  host.on("unhandledRejection", onBug);
  host.on("uncaughtException", onBug);
  const alive = setInterval(() => {}, 2 ** 30); // the clock's timers keep nothing alive
  let exitCode = 0;
  try {
    exitCode = (await main({ log, stopped: stopped.promise, signal: controller.signal, stop })) ?? 0;
  } catch (error) {
    log.error("daemon.failed", { name, error });
    onFailure(error);
    exitCode = factsOf(error).exitCode;
  } finally {
    clearInterval(alive);
    for (const signal of Object.keys(signals)) host.off(signal, onSignal);
    host.off("unhandledRejection", onBug);
    host.off("uncaughtException", onBug);
  }
  host.exit(exitCode);
}

function toStderr(error: unknown): void {
  process.stderr.write(
    `${error instanceof Error ? (SlimeError.isAny(error) ? error.message : (error.stack ?? error.message)) : String(error)}\n`,
  );
}

function withResolvers<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
