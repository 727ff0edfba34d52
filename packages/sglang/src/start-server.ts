import { statSync } from "node:fs";
import { type Clock, deadline, type Logger, type Random, SlimeError, systemRandom } from "@slime/core";
import { detectPlatform, type ExitStatus, isFree, type ProcessTable } from "@slime/platform";
import { watchFamily } from "./family-watch.js";
import { type GuardedProcess, startGuarded } from "./guarded-process.js";
import { probe } from "./http-probe.js";
import { awaitReady, startProbeMsMax } from "./readiness.js";
import { type ServerSpec, serverCommand } from "./server-command.js";
import { causeOfDeath, inWords, type StartedAs, startFailure } from "./server-failure.js";
import { followLog } from "./server-log.js";

/** Longest silence of a starting server: a first start on a machine compiles kernels for minutes, but says so. */
export const startSilenceMsDefault = 300_000;

/** How much of the end of its log is searched for what ended a server. */
const tailBytesMax = 1 << 16;

export interface StartServerParts {
  readonly clock: Clock;
  readonly log: Logger;
  /** Gets the server's stdout and stderr, appended; what lies there already is kept. */
  readonly logFile: string;
  /** Gives the start up. */
  readonly signal?: AbortSignal;
  /** What the server is doing: "loading weights 3/7". */
  readonly onPhase?: (phase: string) => void;
  readonly startSilenceMsMax?: number;
  readonly processes?: ProcessTable;
  readonly random?: Random;
  /** What the server's environment begins with: that of the process which owns it, so that its marks are inherited. */
  readonly inherited: Readonly<Record<string, string | undefined>>;
}

export interface RunningServer extends AsyncDisposable {
  readonly url: string;
  /** Of SGLang's main process. */
  readonly pid: number;
  /** Settles when nothing of it is left, whoever ended it. */
  readonly exited: Promise<ExitStatus & { readonly reason: string }>;
  /** Ends its whole tree at once. SIGKILL is what SGLang ends itself by, too. */
  readonly kill: () => Promise<void>;
}

/** SGLang names its processes so once they run: schedulers, detokenizers, the data-parallel controller. Without one of them it serves nobody. */
function isServerProcess(commandLine: string): boolean {
  return commandLine.startsWith("sglang::");
}

/**
 * Starts an SGLang process and waits until it generates.
 * T1 it resolves after `/health_generate` has answered 200, not before. T2 when it rejects, nothing of the server is left.
 * T3 a scheduler's or detokenizer's end is the server's end, within 2 s. T4 nothing of it outlives `kill()`, nor us.
 * @throws SlimeError `config.invalid`, `port.taken` or `process.exited` with the cause and the fix for a server that ended first;
 * `stalled` for one that goes on no more; `process.start` without Python; the signal's reason.
 */
export async function startServer(spec: ServerSpec, parts: StartServerParts): Promise<RunningServer> {
  const { clock, log, logFile, signal, onPhase = () => {} } = parts;
  signal?.throwIfAborted();
  const processes = parts.processes ?? detectPlatform().processes;
  const started: StartedAs = { python: spec.python, modelPath: spec.modelPath, port: spec.port, logFile };
  await assertPortFree(spec);
  const logStart = sizeOf(logFile);
  const lines = () => followLog(logFile, Math.max(logStart, sizeOf(logFile) - tailBytesMax)).read();
  const { argv, env } = serverCommand(spec, parts.inherited);
  const guarded = await startGuarded({
    python: spec.python,
    command: argv,
    env,
    logFile,
    clock,
    random: parts.random ?? systemRandom,
    processes,
    log,
  });
  log.info("server.started", { pid: guarded.pid, port: spec.port, node: spec.node.rank, logFile, argv: argv.slice(1).join(" ") });
  const life = ownedLife(guarded, { clock, processes, lines, started });
  const url = urlOf(spec);
  let phase: string | null = null;
  const early = new AbortController();
  const died = life.exited.then((end) => early.abort(end));
  try {
    using limit = deadline(clock, null, "the start", early.signal, signal);
    await awaitReady({
      what: `the SGLang server on port ${spec.port}`,
      clock,
      signal: limit.signal,
      follower: followLog(logFile, logStart),
      probe: (until) => probe(url, "/health_generate", { clock, timeoutMs: startProbeMsMax, signal: until }),
      silenceMsMax: parts.startSilenceMsMax ?? startSilenceMsDefault,
      onPhase: (next) => {
        phase = next;
        onPhase(next);
      },
    });
    if ((await life.look()) === 0) log.warn("server.family_unknown", { pid: guarded.pid });
  } catch (error) {
    await life.kill();
    await died;
    if (signal?.aborted || error !== early.signal.reason) throw error;
    const end = await life.exited;
    throw startFailure(started, { status: end, reason: end.member, phase, lines: await lines() });
  }
  log.info("server.ready", { pid: guarded.pid, url });
  return { url, pid: guarded.pid, exited: life.exited, kill: life.kill, [Symbol.asyncDispose]: life.kill };
}

interface OwnedLife {
  /** `member`: which of its processes ended first, where that was the cause. */
  readonly exited: Promise<ExitStatus & { readonly reason: string; readonly member: string | null }>;
  /** Resolves with how many of its processes are watched. */
  readonly look: () => Promise<number>;
  readonly kill: () => Promise<void>;
}

/** The process and its family as one: they live and end together. */
function ownedLife(
  guarded: GuardedProcess,
  parts: {
    readonly clock: Clock;
    readonly processes: ProcessTable;
    readonly lines: () => Promise<readonly string[]>;
    readonly started: StartedAs;
  },
): OwnedLife {
  let member: string | null = null;
  let killed = false;
  const family = watchFamily({
    pid: guarded.pid,
    processes: parts.processes,
    clock: parts.clock,
    isVital: isServerProcess,
    onEnd: ({ pid, commandLine }) => {
      member = `its process ${commandLine.split(" ")[0] ?? ""} (pid ${pid}) ended`;
      void guarded.kill();
    },
  });
  const exited = guarded.exited.then(async (status) => {
    family[Symbol.dispose]();
    const { line, fix } = causeOfDeath(await parts.lines(), parts.started);
    const what = killed ? "killed by its owner" : (member ?? inWords(status));
    return { ...status, member, reason: [what, killed ? [] : (fix ?? line ?? [])].flat().join(": ") };
  });
  return {
    exited,
    look: family.look,
    kill: async () => {
      killed ||= member === null;
      await guarded.kill();
      await exited;
    },
  };
}

async function assertPortFree({ host, port }: ServerSpec): Promise<void> {
  if (await isFree(port, host)) return;
  throw new SlimeError("port.taken", `port ${port} of ${host} is taken: end what listens there, or give the engine another`, {
    port,
    pid: null,
  });
}

function urlOf({ host, port }: ServerSpec): string {
  const reached = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `http://${reached.includes(":") ? `[${reached}]` : reached}:${port}`;
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
