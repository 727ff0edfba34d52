import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { systemClock } from "@slime/core";
import { detectPlatform, killMarked, socketDirOf, storeDirOf } from "@slime/platform";
import { until } from "@slime/platform/testing";

export const repository = fileURLToPath(new URL("../..", import.meta.url));
const bin = (app: string) => join(repository, "apps", app, "bin", `${app}.mjs`);

/** What a command said and how it ended. */
export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** A command of ours that runs. */
export interface Started {
  readonly process: ChildProcess;
  readonly pid: number;
  readonly out: () => string;
  readonly err: () => string;
  readonly ended: Promise<Ended>;
}

export interface ActorView {
  readonly actor_id: string;
  readonly name: string;
  readonly state: string;
  readonly incarnation: number;
  readonly job_id: string;
  readonly node_id: string | null;
  readonly pid: number | null;
  readonly death: { readonly message: string; readonly signal: string | null } | null;
}

export interface NodeView {
  readonly node_id: string;
  readonly state: string;
  readonly pid: number;
  readonly incarnation: number;
  readonly gpus: readonly { readonly held: number }[];
}

export interface JobView {
  readonly job_id: string;
  readonly submission_id: string | null;
  readonly state: string;
  readonly message: string;
  readonly driver_info: { readonly pid: string } | null;
  readonly driver_exit_code: number | null;
  readonly driver_signal: string | null;
}

export interface StatusView {
  readonly cluster_id: string;
  readonly epoch: number;
  readonly read_only: string | null;
}

interface HeadFile {
  readonly clusterId: string;
  readonly epoch: number;
  readonly grpcAddress: string;
  readonly httpAddress: string;
  readonly process: { readonly pid: number };
}

/** A place of one test's own, with our commands run in it. Everything they start below it is ended at its end. */
export class Home implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), "slime-it-"));
  readonly env: NodeJS.ProcessEnv = {
    ...process.env,
    SLIME_HOME: this.path,
    NODE_OPTIONS: "",
    SLIME_LOG: "json",
    SLIME_TEST_HOME: this.path,
  };

  /** A command line of ours, not waited for. */
  start(
    app: "slime" | "slime-head" | "slime-worker",
    args: readonly string[],
    options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
  ): Started {
    const child = spawn(process.execPath, [bin(app), ...args], {
      cwd: options.cwd ?? repository,
      env: { ...this.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (data: Buffer) => void (out += data.toString()));
    child.stderr.on("data", (data: Buffer) => void (err += data.toString()));
    const ended = once(child, "exit").then(([code]) => ({ code: code as number | null, out, err }));
    return { process: child, pid: child.pid ?? 0, out: () => out, err: () => err, ended };
  }

  /** The same, to its end. */
  run(
    app: "slime" | "slime-head" | "slime-worker",
    args: readonly string[],
    options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
  ): Promise<Ended> {
    return this.start(app, args, options).ended;
  }

  slime(...args: readonly string[]): Promise<Ended> {
    return this.run("slime", args);
  }

  /** Writes a file below the home. @returns its path. */
  file(name: string, text: string): string {
    const path = join(this.path, name);
    writeFileSync(path, text);
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const mark = { name: "SLIME_TEST_HOME", value: this.path };
    await killMarked(mark, { processes: detectPlatform().processes, clock: systemClock, graceMs: 0 });
    for (const clusterId of this.clusterIds()) for (const path of machinePaths(clusterId)) await rm(path, { recursive: true, force: true });
    await rm(this.path, { recursive: true, force: true });
  }

  private clusterIds(): readonly string[] {
    const heads = readdirSync(this.path, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith("head/head.json"));
    return heads.flatMap((name) =>
      existsSync(join(this.path, name)) ? [(JSON.parse(readFileSync(join(this.path, name), "utf8")) as HeadFile).clusterId] : [],
    );
  }
}

/** A head and workers by the commands a user types, on free ports; each can be killed and started again. */
export class Cluster implements AsyncDisposable {
  readonly home: Home;
  readonly clusterId: string;
  readonly address: string;
  readonly httpAddress: string;
  readonly workers: Started[] = [];
  head: Started;
  readonly #stateDir: string | null;
  #epoch = 1;

  private constructor(home: Home, head: Started, facts: HeadFile, stateDir: string | null) {
    this.#stateDir = stateDir;
    this.home = home;
    this.head = head;
    this.clusterId = facts.clusterId;
    this.address = facts.grpcAddress;
    this.httpAddress = facts.httpAddress;
  }

  /** @param workers GPUs of each. */
  static async start(workers: readonly number[], stateDir: string | null = null): Promise<Cluster> {
    const home = new Home();
    try {
      const [head, facts] = await startHead(home, { port: "0", httpPort: "0", epoch: 1, stateDir });
      const cluster = new Cluster(home, head, facts, stateDir);
      for (const gpus of workers) await cluster.join(gpus);
      return cluster;
    } catch (error) {
      await home[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** One more `slime-worker join`, which takes up the directory of a dead one first. Resolves when the head lists its process. */
  async join(gpus: number): Promise<NodeView> {
    const worker = this.home.start("slime-worker", [
      "join",
      this.address,
      "--num-gpus",
      String(gpus),
      "--num-cpus",
      "4",
      "--pool-size",
      "1",
    ]);
    this.workers.push(worker);
    return until(
      `the worker of pid ${worker.pid}`,
      async () => {
        if (worker.process.exitCode !== null) throw new Error(`the worker ended with ${worker.process.exitCode}: ${worker.err()}`);
        return (await this.nodes()).find((node) => node.pid === worker.pid && node.state === "ALIVE");
      },
      20_000,
    );
  }

  /** SIGKILL, and gone. */
  async killHead(): Promise<void> {
    this.head.process.kill("SIGKILL");
    await this.head.ended;
  }

  /** Another life of the head, on the same state and ports. */
  async restartHead(): Promise<void> {
    const [head] = await startHead(this.home, {
      port: portOf(this.address),
      httpPort: portOf(this.httpAddress),
      epoch: ++this.#epoch,
      stateDir: this.#stateDir,
    });
    this.head = head;
  }

  async get<T>(path: string): Promise<T> {
    const response = await fetch(`http://${this.httpAddress}${path}`, { signal: AbortSignal.timeout(5_000) });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }

  nodes = () => this.get<readonly NodeView[]>("/api/nodes");
  job = (id: string) => this.get<JobView>(`/api/jobs/${id}`);
  status = () => this.get<StatusView>("/api/status");
  log = async (id: string) => (await this.get<{ readonly logs: string }>(`/api/jobs/${id}/logs`)).logs;

  async actors(jobId: string): Promise<readonly ActorView[]> {
    return (await this.get<readonly ActorView[]>("/api/actors")).filter((actor) => actor.job_id === jobId);
  }

  /** `slime job submit`, not followed. @returns the job once it runs. */
  async submit(submissionId: string, words: readonly string[]): Promise<JobView> {
    const { code, out, err } = await this.home.slime(
      "job",
      "submit",
      "--address",
      this.httpAddress,
      "--no-wait",
      "--submission-id",
      submissionId,
      "--",
      ...words,
    );
    if (code !== 0) throw new Error(`job submit ended with ${code}: ${out}${err}`);
    return this.job(submissionId);
  }

  /** What files of the cluster whose names fit hold: logs, for whoever must find out why something failed. */
  written(name: RegExp): string {
    return readdirSync(this.home.path, { recursive: true, encoding: "utf8" })
      .filter((path) => name.test(path))
      .map((path) => `--- ${path}\n${readFileSync(join(this.home.path, path), "utf8")}`)
      .join("\n");
  }

  /** Processes with the cluster's mark, read from /proc alone. */
  marked(): readonly number[] {
    return markedProcesses("SLIME_CLUSTER_ID", this.clusterId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.home[Symbol.asyncDispose]();
    for (const path of machinePaths(this.clusterId)) await rm(path, { recursive: true, force: true });
  }
}

async function startHead(
  home: Home,
  {
    port,
    httpPort,
    epoch,
    stateDir,
  }: { readonly port: string; readonly httpPort: string; readonly epoch: number; readonly stateDir: string | null },
): Promise<readonly [Started, HeadFile]> {
  const head = home.start("slime-head", [
    "start",
    "--port",
    port,
    "--http-port",
    httpPort,
    ...(stateDir === null ? [] : ["--state-dir", stateDir]),
  ]);
  const path = join(stateDir ?? join(home.path, "head"), "head.json");
  const facts = await until(
    `life ${epoch} of the head`,
    () => {
      if (head.process.exitCode !== null) throw new Error(`the head ended with ${head.process.exitCode}: ${head.err()}`);
      const written = existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as HeadFile) : null;
      return written !== null && written.epoch === epoch && written.process.pid === head.pid ? written : null;
    },
    20_000,
  );
  return [head, facts];
}

const portOf = (address: string): string => address.slice(address.lastIndexOf(":") + 1);

/** Where sockets and objects of a cluster lie on this machine. */
export function machinePaths(clusterId: string): readonly string[] {
  return [socketDirOf(clusterId), storeDirOf(clusterId, detectPlatform().sharedMemoryRoot)];
}

function procText(path: string): string | null {
  try {
    return readFileSync(`/proc/${path}`, "latin1");
  } catch {
    return null; // gone meanwhile
  }
}

/** Whether a process lives; a zombie does not. */
export function isAlive(pid: number): boolean {
  const stat = procText(`${pid}/stat`);
  return stat !== null && !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
}

/** When a process began, in ticks since boot: with its pid, its identity. */
export function bornAt(pid: number): string | undefined {
  const stat = procText(`${pid}/stat`) ?? "";
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}

/** Living processes with `NAME=value` in their environment, as /proc has it: nobody's own list. */
export function markedProcesses(name: string, value: string): readonly number[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => pid !== process.pid && (procText(`${pid}/environ`) ?? "").split("\0").includes(`${name}=${value}`) && isAlive(pid));
}

/** TCP ports on which these processes listen. */
export function listeningPorts(pids: readonly number[]): readonly number[] {
  const inodes = new Set(pids.flatMap(socketInodes));
  return ["net/tcp", "net/tcp6"]
    .flatMap((table) => (procText(table) ?? "").split("\n").slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[3] === "0A" && inodes.has(fields[9] ?? ""))
    .map((fields) => Number.parseInt(fields[1]?.split(":")[1] ?? "", 16));
}

/** Whether anybody listens on a TCP port of this machine. */
export function isListening(port: number): boolean {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  return ["net/tcp", "net/tcp6"].some((table) =>
    (procText(table) ?? "").split("\n").some((line) => new RegExp(`^\\s*\\d+: [0-9A-F]+:${hex} [0-9A-F:]+ 0A `).test(line)),
  );
}

function socketInodes(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        return [];
      }
    });
  } catch {
    return [];
  }
}

/** A small run of `examples/sort` as a configuration file; `flags` replace or add lines. */
export function sortRun(home: Home, name: string, flags: Readonly<Record<string, string | number | boolean>> = {}): string {
  const all = {
    "train-backend": "embedded",
    "actor-num-gpus-per-node": 1,
    "rollout-num-gpus": 1,
    "rollout-num-workers": 1,
    "hf-checkpoint": join(repository, "examples/sort/model"),
    "from-scratch": true,
    seed: 1234,
    "prompt-data": join(repository, "examples/sort/train.jsonl"),
    "rollout-shuffle": true,
    "num-rollout": 4,
    "rollout-batch-size": 8,
    "n-samples-per-prompt": 4,
    "global-batch-size": 32,
    "use-dynamic-batch-size": true,
    "max-tokens-per-gpu": 4096,
    "rollout-temperature": 1,
    "rollout-max-response-len": 5,
    "custom-rm-path": join(repository, "examples/sort/reward.ts"),
    "reward-key": "score",
    "advantage-estimator": "grpo",
    lr: 1e-3,
    "save-interval": 2,
    ...flags,
  };
  return home.file(
    `${name}.yaml`,
    Object.entries(all)
      .map(([flag, value]) => `${flag}: ${value}\n`)
      .join(""),
  );
}

/** Events of a run's journal, oldest first; none before there is one. */
export function journal(runDir: string): readonly {
  readonly kind: string;
  readonly rolloutId?: number;
  readonly reason?: string;
  readonly era?: number;
  readonly checkpoint?: { readonly name: string; readonly trained: number } | null;
}[] {
  const path = join(runDir, "journal.jsonl");
  if (!existsSync(path)) return [];
  return readFileSync(path, "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as { readonly event?: { readonly kind: string } })
    .flatMap(({ event }) => (event === undefined ? [] : [event]));
}

/** How many rollouts the journal has trained, over all attempts. */
export const trainedCount = (runDir: string): number => journal(runDir).filter((event) => event.kind === "trained").length;
