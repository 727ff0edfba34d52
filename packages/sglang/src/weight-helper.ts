import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Clock, type Logger, systemClock, type Timer } from "@slime/core";
import { detectPlatform, type Platform, type ProcessTable, translateIoError } from "@slime/platform";
import type { HelperEnd, HelperPush, WeightHelper } from "./weight-helper-port.js";

export interface WeightHelperOptions {
  /** The Python of the server: its torch makes the handles. */
  readonly python: string;
  /** The whole environment: the marks of its owner, and CUDA_VISIBLE_DEVICES naming the server's first card. */
  readonly env: Readonly<Record<string, string>>;
  /** Its stderr is appended there. */
  readonly logFile: string;
  readonly clock?: Clock;
  readonly log: Logger;
  /** Default: this machine's. */
  readonly platform?: Pick<Platform, "processes" | "sharedMemoryRoot">;
  /** Importing torch takes seconds, on a cold disk many. */
  readonly startTimeoutMs?: number;
  /** Beyond the time that its own post has: then the helper itself hangs. */
  readonly silenceMarginMs?: number;
}

/** A helper that is told to end and does not is killed after this. */
const endMs = 2_000;

interface Line {
  readonly ready?: true;
  readonly id?: number;
  readonly posting?: number;
  readonly posted?: number;
  readonly managers?: readonly number[];
  readonly end?: HelperEnd["kind"];
  readonly status?: number;
  readonly reason?: string;
}

interface Running {
  readonly kind: "running";
  readonly child: ChildProcess;
  readonly ended: Promise<string>;
  /** Processes of torch's that outlive it. */
  readonly managers: Set<number>;
  ready: boolean;
}

type HelperState = Running | { readonly kind: "stopped" } | { readonly kind: "closed" };

/**
 * Starts the Python helper (python/weight_helper.py) and keeps one there: a helper that died or hung is replaced at the next push.
 * W1: a push settles, whoever hangs: the helper's own deadline for a post, ours on its silence, its exit. W2: after `close`, neither the helper
 * nor what torch started for it is left. W3: a helper that is gone between two posts has loaded whole buckets; within one, nobody knows.
 */
export function startWeightHelper(options: WeightHelperOptions): WeightHelper {
  const helper = new PythonHelper(options);
  helper.start();
  return helper;
}

class PythonHelper implements WeightHelper {
  readonly #options: WeightHelperOptions;
  readonly #clock: Clock;
  readonly #processes: ProcessTable;
  readonly #sharedMemory: string;
  #state: HelperState = { kind: "stopped" };
  #heard: (line: Line) => void = () => {};
  #requests = 0;
  #busy = false;
  /** The end of the last helper, with all it left. */
  #swept: Promise<void> = Promise.resolve();

  constructor(options: WeightHelperOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    const platform = options.platform ?? detectPlatform();
    this.#processes = platform.processes;
    this.#sharedMemory = platform.sharedMemoryRoot;
  }

  start(): Running {
    const { python, env, logFile, log } = this.#options;
    const stderr = appendTo(logFile);
    const script = fileURLToPath(new URL("../python/weight_helper.py", import.meta.url));
    const child = spawn(python, ["-u", script], { env: { ...env }, stdio: ["pipe", "pipe", stderr] });
    closeSync(stderr);
    const ended = new Promise<string>((resolve) => {
      child.once("error", (error) => resolve(`could not start ${python}: ${error.message}`));
      child.once("exit", (code, signal) => resolve(`the helper ended by ${signal ?? `exit code ${code}`}; see ${logFile}`));
    });
    const running: Running = { kind: "running", child, ended, managers: new Set(), ready: false };
    this.#state = running;
    // Whoever writes to it learns of its end by `ended`.
    child.stdin?.on("error", () => {});
    if (child.stdout !== null) createInterface({ input: child.stdout }).on("line", (text) => this.#read(running, text));
    void ended.then((reason) => {
      this.#swept = this.#sweep(running);
      if (this.#state !== running) return;
      this.#state = { kind: "stopped" };
      log.warn("weight_helper.ended", { reason });
    });
    return running;
  }

  async push(request: HelperPush): Promise<HelperEnd> {
    if (this.#state.kind === "closed") return { kind: "failed", reason: "the weight helper is closed", posted: 0 };
    if (this.#busy) return { kind: "failed", reason: "the weight helper is busy with another push", posted: 0 };
    this.#busy = true;
    try {
      const running = this.#state.kind === "running" ? this.#state : this.start();
      const refusal = running.ready ? null : await this.#untilReady(running);
      if (refusal !== null) return { kind: "failed", reason: refusal, posted: 0 };
      return await this.#exchange(running, request);
    } finally {
      this.#busy = false;
    }
  }

  async close(): Promise<void> {
    const state = this.#state;
    this.#state = { kind: "closed" };
    if (state.kind === "running") {
      state.child.stdin?.end();
      const timer = this.#clock.after(endMs, () => state.child.kill("SIGKILL"));
      await state.ended;
      timer.cancel();
    }
    await this.#swept;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @returns why it did not become ready, or null. */
  #untilReady(running: Running): Promise<string | null> {
    const startTimeoutMs = this.#options.startTimeoutMs ?? 120_000;
    return new Promise((resolve) => {
      const timer = this.#clock.after(startTimeoutMs, () => {
        running.child.kill("SIGKILL");
        resolve(`the weight helper did not start within ${startTimeoutMs} ms; see ${this.#options.logFile}`);
      });
      this.#heard = (line) => {
        if (line.ready !== true) return;
        timer.cancel();
        resolve(null);
      };
      void running.ended.then((reason) => {
        timer.cancel();
        resolve(reason);
      });
    });
  }

  #exchange(running: Running, { bucketTimeoutMs, ...request }: HelperPush): Promise<HelperEnd> {
    const id = ++this.#requests;
    const limitMs = bucketTimeoutMs + (this.#options.silenceMarginMs ?? 5_000);
    return new Promise((resolve) => {
      let posted = 0;
      let posting = false;
      let timer: Timer | null = null;
      const settle = (end: HelperEnd) => {
        timer?.cancel();
        this.#heard = () => {};
        resolve(end);
      };
      const gone = (reason: string) => settle({ kind: posting ? "lost" : "failed", reason, posted });
      const wait = () => {
        timer?.cancel();
        timer = this.#clock.after(limitMs, () => {
          running.child.kill("SIGKILL");
          gone(`the weight helper said nothing for ${limitMs} ms`);
        });
      };
      this.#heard = (line) => {
        if (line.id !== id) return;
        posting = line.posting !== undefined;
        posted = line.posted ?? posted;
        if (line.end !== undefined) settle(endOf(line, posted));
        else wait();
      };
      void running.ended.then(gone);
      wait();
      running.child.stdin?.write(`${JSON.stringify({ id, ...request, timeoutS: bucketTimeoutMs / 1_000 })}\n`);
    });
  }

  #read(running: Running, text: string): void {
    let line: Line;
    try {
      line = JSON.parse(text) as Line;
    } catch {
      this.#options.log.warn("weight_helper.noise", { text: text.slice(0, 200) });
      return;
    }
    if (line.ready === true) running.ready = true;
    for (const pid of line.managers ?? []) running.managers.add(pid);
    if (this.#state === running || this.#state.kind === "closed") this.#heard(line);
  }

  /** W2, for a helper that was killed. A number may be another process's by now, so each is looked at. */
  async #sweep({ child, managers }: Running): Promise<void> {
    const pids = [...managers];
    managers.clear();
    const own = `torch_${child.pid ?? ""}_`;
    for (const name of await readdir(this.#sharedMemory).catch(() => []))
      if (name.startsWith(own)) await rm(join(this.#sharedMemory, name), { force: true });
    for (const pid of pids) {
      if (!((await this.#processes.commandLine(pid)) ?? "").includes("torch_shm_manager")) continue;
      try {
        process.kill(pid, "SIGTERM");
      } catch {
        // It ended just now.
      }
    }
  }
}

function appendTo(path: string): number {
  try {
    return openSync(path, "a", 0o600);
  } catch (error) {
    throw translateIoError(error, path);
  }
}

function endOf({ end, status, reason }: Line, posted: number): HelperEnd {
  const why = reason ?? "no reason given";
  switch (end) {
    case "done":
      return { kind: "done" };
    case "refused":
      return { kind: "refused", status: status ?? 0, reason: why, posted };
    case "lost":
      return { kind: "lost", reason: why, posted };
    default:
      return { kind: "failed", reason: why, posted };
  }
}
