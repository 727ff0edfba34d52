import { fileURLToPath } from "node:url";
import { abortable, type Clock, deadline, type Logger, type Random, SlimeError, sleep, systemRandom } from "@slime/core";
import { detectPlatform, type ExitStatus, isFree, lastLines, type ProcessTable } from "@slime/platform";
import { startGuarded } from "./guarded-process.js";
import { probe } from "./http-probe.js";
import { type RouterRequest, routerArgs } from "./router-args.js";
import type { ArgTable } from "./server-arg-fields.js";
import { causeOfDeath, inWords } from "./server-failure.js";

const launcher = fileURLToPath(new URL("../python/launch_router.py", import.meta.url));

/** A router's start takes 1 to 2 s; on a machine under heavy load more. */
const startMsMax = 60_000;
const startPollMs = 100;
const startProbeMs = 2_000;

export interface SglangRouterOptions extends RouterRequest {
  /** A Python in which sglang_router is installed. */
  readonly python: string;
  /** Added to the inherited environment, and stronger. */
  readonly env: Readonly<Record<string, string>>;
}

export interface StartSglangRouterParts {
  readonly clock: Clock;
  readonly log: Logger;
  /** Gets its stdout and stderr, appended. */
  readonly logFile: string;
  /** What the installed router takes; null: not known. */
  readonly table: ArgTable | null;
  readonly suggest?: (wrong: string, known: readonly string[]) => readonly string[];
  readonly signal?: AbortSignal;
  readonly processes?: ProcessTable;
  readonly random?: Random;
  readonly inherited: Readonly<Record<string, string | undefined>>;
}

export interface RunningSglangRouter extends AsyncDisposable {
  readonly url: string;
  /** Its Prometheus page. */
  readonly metricsUrl: string;
  readonly pid: number;
  /** Settles when nothing of it is left. */
  readonly exited: Promise<ExitStatus & { readonly reason: string }>;
  readonly kill: () => Promise<void>;
}

/**
 * Starts the real sglang_router as a process of ours: it ends with us and nothing of it is left. It has no engines yet; see `sglangRouter`.
 * @throws SlimeError `config.invalid` for settings it cannot have and for a Python without it; `port.taken`; `process.exited` when it
 * ended first; `call.deadline` when it does not answer; `process.start` without Python.
 */
export async function startSglangRouter(options: SglangRouterOptions, parts: StartSglangRouterParts): Promise<RunningSglangRouter> {
  const { clock, log, logFile } = parts;
  const args = routerArgs(options, { table: parts.table, ...(parts.suggest === undefined ? {} : { suggest: parts.suggest }) });
  for (const port of [options.port, options.metricsPort]) {
    if (!(await isFree(port, options.host)))
      throw new SlimeError("port.taken", `port ${port} of ${options.host} is taken: end what listens there, or give the router another`, {
        port,
        pid: null,
      });
  }
  const guarded = await startGuarded({
    python: options.python,
    command: [options.python, launcher, JSON.stringify(args)],
    env: defined({ ...parts.inherited, PYTHONUNBUFFERED: "1", ...options.env }),
    logFile,
    clock,
    random: parts.random ?? systemRandom,
    processes: parts.processes ?? detectPlatform().processes,
    log,
  });
  const url = `http://${options.host}:${options.port}`;
  let killed = false;
  const started = { python: options.python, modelPath: "", port: options.port, logFile };
  const exited = guarded.exited.then(async (status) => {
    const { line, fix } = causeOfDeath(await lastLines(logFile, 60), started);
    const why = killed ? null : (fix ?? line);
    return { ...status, fix, reason: [killed ? "killed by its owner" : inWords(status), ...(why === null ? [] : [why])].join(": ") };
  });
  const kill = async () => {
    killed = true;
    await guarded.kill();
    await exited;
  };
  const early = new AbortController();
  void exited.then(({ fix, reason, exitCode, signal }) => {
    const message = `sglang_router ended before it was ready (${reason}); see ${logFile}`;
    early.abort(
      fix === null
        ? new SlimeError("process.exited", message, { what: "sglang_router", exitCode, signal })
        : new SlimeError("config.invalid", message, { issues: [fix] }),
    );
  });
  try {
    using limit = deadline(clock, startMsMax, "the start of sglang_router", early.signal, parts.signal);
    for (;;) {
      const outcome = await abortable(probe(url, "/liveness", { clock, timeoutMs: startProbeMs, signal: limit.signal }), limit.signal);
      if (outcome.kind === "answered" && outcome.status === 200) break;
      await sleep(clock, startPollMs, limit.signal);
    }
  } catch (error) {
    await kill();
    throw error;
  }
  log.info("router.ready", { pid: guarded.pid, url, policy: options.policy });
  const metricsUrl = `http://${options.host}:${options.metricsPort}/metrics`;
  return { url, metricsUrl, pid: guarded.pid, exited, kill, [Symbol.asyncDispose]: kill };
}

function defined(env: Readonly<Record<string, string | undefined>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}
