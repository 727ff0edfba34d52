import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ActorId, ClusterId, JobId, systemClock, systemRandom } from "@slime/core";
import { detectPlatform, killMarked, type Platform } from "@slime/platform";
import { connect, encodeValueFrame, type Peer } from "@slime/rpc";
import type { ActorSpec, StartActor, StartJob } from "@slime/rpc/control";

const bin = fileURLToPath(new URL("../../apps/slime-worker/bin/slime-worker.mjs", import.meta.url));
const counter = fileURLToPath(new URL("fixtures/counter.mjs", import.meta.url));

export interface Daemon {
  readonly process: ChildProcess;
  readonly output: () => string;
  readonly exited: Promise<number | null>;
}

/** Directories of one test's cluster on this machine, and daemons started in them by the real command. */
export class Machine implements AsyncDisposable {
  readonly clusterId: string;
  readonly root = mkdtempSync(join(tmpdir(), "sl-"));
  readonly socketDir = join(this.root, "s");
  readonly storeDir = join(this.root, "store");
  readonly platform: Platform = detectPlatform();
  readonly env: NodeJS.ProcessEnv;
  readonly #daemons: Daemon[] = [];

  constructor(clusterId: string = ClusterId.create(systemRandom)) {
    this.clusterId = clusterId;
    this.env = {
      ...process.env,
      SLIME_HOME: this.root,
      SLIME_SOCKET_DIR: this.socketDir,
      SLIME_STORE_DIR: this.storeDir,
      NODE_OPTIONS: "",
      SLIME_TEST_MACHINE: this.clusterId,
    };
  }

  run(...args: readonly string[]): Daemon {
    const child = spawn(process.execPath, [bin, ...args], { env: this.env, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => void (output += data.toString()));
    const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
    const daemon = { process: child, output: () => output, exited };
    this.#daemons.push(daemon);
    return daemon;
  }

  join(address: string, ...args: readonly string[]): Daemon {
    return this.run("join", address, "--log", "json", "--pool-size", "1", "--num-cpus", "2", ...args);
  }

  /** Living processes of this cluster, by their mark alone. */
  async processes(): Promise<readonly number[]> {
    return (await this.platform.processes.marked({ name: "SLIME_CLUSTER_ID", value: this.clusterId })).map((entry) => entry.pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.#daemons) daemon.process.kill("SIGKILL");
    const mark = { name: "SLIME_TEST_MACHINE", value: this.clusterId };
    await killMarked(mark, { processes: this.platform.processes, clock: systemClock, graceMs: 0 });
    rmSync(this.root, { recursive: true, force: true });
  }

  /** Calls a method of an actor directly, as any other process of the machine would. */
  async connect(socket: string): Promise<Peer> {
    return connect(socket, { hello: { clusterId: this.clusterId, who: { kind: "tool", id: "test", incarnation: 0, pid: process.pid } } });
  }
}

export function actorStart(
  change: Partial<ActorSpec> & { readonly start?: unknown } = {},
  incarnation = 1,
  gpuIndices: number[] = [],
): StartActor {
  const { start = 5, ...rest } = change;
  const spec: ActorSpec = {
    actorId: ActorId.create(systemRandom),
    jobId: JobId.create(systemRandom),
    className: "Counter",
    host: "node",
    module: counter,
    exportName: "Counter",
    arguments: Buffer.concat(encodeValueFrame([start])),
    resources: {},
    placementGroupId: "",
    bundleIndex: -1,
    env: {},
    cwd: "",
    gpuVisibility: "assigned",
    concurrency: 1,
    concurrencyGroups: {},
    restartsMax: 0,
    restartWindowMs: 0,
    lifetime: "job",
    name: "counter-0",
    pendingCallsMax: 100,
    creationTimeoutMs: 0,
    nodeLabels: {},
    python: "",
    nodeId: "",
    ...rest,
  };
  return { spec, incarnation, gpuIndices };
}

export function jobStart(entrypoint: string, env: Record<string, string> = {}): StartJob {
  return {
    attempt: 1,
    spec: { jobId: JobId.create(systemRandom), submissionId: "s", entrypoint, env, cwd: "", metadata: {}, resources: {}, attemptsMax: 1 },
  };
}
