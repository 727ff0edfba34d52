import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger, systemClock } from "@slime/core";
import { detectPlatform } from "@slime/platform";
import { type RunningServer, type ServerArgs, startServer } from "@slime/sglang";
import { freePort } from "@slime/sglang/testing";
import { afterAll, afterEach } from "vitest";
import { realEnv } from "./real-env.js";

const { processes } = detectPlatform();

/** Longest silence of a start: it imports for most of half a minute, longer on a busy machine. */
const startSilenceMsMax = 120_000;

export interface ServerOptions {
  readonly model: string;
  readonly logs: string;
  /** Beside those of slime-real.json, which they replace by name. */
  readonly args?: ServerArgs;
  readonly env?: Readonly<Record<string, string>>;
}

/** A stock SGLang server as our engines' actors run it, and hands on its processes. */
export interface RealServer extends RunningServer {
  /** The living process of this server that calls itself so: "sglang::scheduler". */
  readonly child: (name: string) => Promise<number>;
  /** Of the processes that it had when it was ready, those that live. */
  readonly living: () => Promise<readonly number[]>;
  readonly log: () => string;
}

/**
 * A folder for the logs of a file's servers. It goes at the end of the file, unless a test failed: then it stays, and the end says where.
 * To be called where hooks can be set, before anything that uses the folder at its own end.
 */
export function logFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "slime-real-logs-"));
  let failed = false;
  afterEach(({ task }) => {
    failed ||= task.result?.state === "fail";
  });
  afterAll(() => {
    if (failed) process.stderr.write(`logs of the servers: ${folder}\n`);
    else rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Starts a server and waits until it generates. @throws what `startServer` throws. */
export async function startRealServer({ model, logs, args = {}, env = {} }: ServerOptions): Promise<RealServer> {
  const real = realEnv();
  const port = await freePort();
  const logFile = join(logs, `server-${port}.log`);
  const server = await startServer(
    {
      python: real.python,
      modelPath: model,
      host: "127.0.0.1",
      port,
      args: { ...real.args, ...args },
      env: { ...real.env, ...env },
      gpuUuids: [],
      node: { rank: 0, count: 1, distInitAddress: null },
    },
    { clock: systemClock, log: silentLogger, logFile, startSilenceMsMax, inherited: process.env },
  );
  const family = await familyOf(server.pid);
  return {
    ...server,
    async child(name) {
      for (const pid of family) if ((await processes.commandLine(pid))?.startsWith(name)) return pid;
      throw new Error(`no living process of the server calls itself ${name}`);
    },
    async living() {
      const alive = new Set((await processes.list()).map(({ pid }) => pid));
      return family.filter((pid) => alive.has(pid));
    },
    log: () => readFileSync(logFile, "utf8"),
    [Symbol.asyncDispose]: server.kill,
  };
}

/** A process and everything below it. */
async function familyOf(root: number): Promise<readonly number[]> {
  const all = await processes.list();
  const found = [root];
  for (let at = 0; at < found.length; at++) for (const { pid, parentPid } of all) if (parentPid === found[at]) found.push(pid);
  return found;
}
