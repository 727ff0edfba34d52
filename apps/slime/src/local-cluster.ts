import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Clock, SlimeError, sleep } from "@slime/core";
import { detectPlatform } from "@slime/platform";

/** Time a head or a worker may take until it is there. */
const startMsMax = 30_000;
/** Time the cluster may take to end; past it what is left is named. */
const stopMsMax = 40_000;
const pollMs = 50;

export interface LocalCluster extends AsyncDisposable {
  readonly clusterId: string;
  readonly headAddress: string;
  /** host:port of the head's HTTP API. */
  readonly httpAddress: string;
  /** Ends it. @returns pids of processes that still carry the cluster's mark; none is how it should be. */
  readonly stop: () => Promise<readonly number[]>;
}

export interface LocalClusterOptions {
  /** Everything of the cluster lies below: state, sockets' records, logs. */
  readonly home: string;
  readonly workers: number;
  readonly gpusPerWorker: number;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/**
 * A head and workers as processes of their own on free ports, apart from any other cluster of this machine.
 * Their logs lie in `home/head.log` and `home/worker-N.log`. @throws `process.start` with the last lines of the log that says why.
 */
export async function startLocalCluster(options: LocalClusterOptions): Promise<LocalCluster> {
  mkdirSync(options.home, { recursive: true });
  const children: ChildProcess[] = [];
  const launch = (app: "slime-head" | "slime-worker", args: readonly string[], name: string) => {
    const log = join(options.home, `${name}.log`);
    const fd = openSync(log, "a");
    const entry = fileURLToPath(new URL(`../../${app}/bin/${app}.mjs`, import.meta.url));
    // A group of its own: Ctrl-C reaches this process alone, which then ends the cluster in order.
    const child = spawn(process.execPath, [entry, ...args], {
      detached: true,
      stdio: ["ignore", fd, fd],
      env: { ...process.env, SLIME_HOME: options.home, SLIME_LOG: "json" },
    });
    closeSync(fd);
    children.push(child);
    return { child, log, name };
  };
  const until = async <T>(
    what: { readonly child: ChildProcess; readonly log: string; readonly name: string },
    check: () => Promise<T | null>,
  ): Promise<T> => {
    for (const started = options.clock.nowMs(); ; ) {
      options.signal.throwIfAborted();
      const value = await check();
      if (value !== null) return value;
      const late = options.clock.nowMs() - started > startMsMax;
      if (late || what.child.exitCode !== null) {
        const tail = existsSync(what.log) ? readFileSync(what.log, "utf8").trim().split("\n").slice(-5).join("\n") : "";
        throw new SlimeError(
          "process.start",
          `${what.name} ${late ? `was not ready within ${startMsMax} ms` : `ended with exit code ${what.child.exitCode}`}; ${what.log} ends:\n${tail}`,
          { what: what.name },
        );
      }
      await sleep(options.clock, pollMs, options.signal);
    }
  };

  const end = async (): Promise<void> => {
    const alive = children.filter((child) => child.exitCode === null && child.signalCode === null);
    // The head ends jobs, actors and workers, then itself.
    (alive[0] ?? null)?.kill("SIGTERM");
    const done = Promise.all(alive.map((child) => new Promise<void>((resolve) => child.once("exit", () => resolve()))));
    const late = sleep(options.clock, stopMsMax).then(() => {
      for (const child of alive) child.kill("SIGKILL");
    });
    await Promise.race([done, late]);
  };

  try {
    const head = launch("slime-head", ["start", "--port", "0", "--http-port", "0"], "head");
    const facts = await until(head, async () => readHead(join(options.home, "head", "head.json")));
    const workers = Array.from({ length: options.workers }, (_, at) =>
      launch("slime-worker", ["join", facts.grpcAddress, "--num-gpus", String(options.gpusPerWorker)], `worker-${at + 1}`),
    );
    for (const [at, worker] of workers.entries())
      await until(worker, async () => ((await aliveNodes(facts.httpAddress)) > at ? true : null));
    let stopping: Promise<readonly number[]> | undefined;
    const stop = () => (stopping ??= end().then(() => leftOver(facts.clusterId)));
    return {
      clusterId: facts.clusterId,
      headAddress: facts.grpcAddress,
      httpAddress: facts.httpAddress,
      stop,
      [Symbol.asyncDispose]: async () => void (await stop()),
    };
  } catch (error) {
    await end();
    throw error;
  }
}

interface HeadFacts {
  readonly clusterId: string;
  readonly grpcAddress: string;
  readonly httpAddress: string;
}

/** What a head says of itself once it listens; null before that. */
function readHead(path: string): HeadFacts | null {
  if (!existsSync(path)) return null;
  const { clusterId, grpcAddress, httpAddress } = JSON.parse(readFileSync(path, "utf8")) as Partial<HeadFacts>;
  return clusterId !== undefined && grpcAddress !== undefined && httpAddress !== undefined ? { clusterId, grpcAddress, httpAddress } : null;
}

async function aliveNodes(httpAddress: string): Promise<number> {
  const nodes = (await (await fetch(`http://${httpAddress}/api/nodes`)).json()) as readonly { readonly state: string }[];
  return nodes.filter((node) => node.state === "ALIVE").length;
}

/** Processes that carry the cluster's mark, by a scan of the process table and not by anyone's list. */
async function leftOver(clusterId: string): Promise<readonly number[]> {
  const { processes } = detectPlatform(process.env);
  return (await processes.marked({ name: "SLIME_CLUSTER_ID", value: clusterId })).map(({ pid }) => pid);
}
