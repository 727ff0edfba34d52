import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { compiledUrl } from "@slime/core";
import type { WorkerMessage, WorkerRequest, WorkerStart } from "./protocol.js";

/** A place where scoring runs and which can be ended at any moment. */
export interface ScoringWorker {
  readonly send: (request: WorkerRequest) => void;
  /** Ends it at once, whatever it does. */
  readonly kill: () => void;
}

export interface WorkerEvents {
  readonly onMessage: (message: WorkerMessage) => void;
  /** Said once, unless it was killed. */
  readonly onDeath: (reason: string) => void;
}

/** Largest heap of one scoring thread; beyond it the thread dies and its group fails. */
export const workerHeapMbMax = 512;

/** Starts a thread for rules and JavaScript hooks, a Python process for Python ones. A worker that cannot start says so by `onDeath`. */
export function startWorker(start: WorkerStart, events: WorkerEvents): ScoringWorker {
  return start.spec.kind === "python" ? startPython(start, events) : startThread(start, events);
}

function startThread(start: WorkerStart, events: WorkerEvents): ScoringWorker {
  const worker = new Worker(compiledUrl(import.meta.url, "./worker.js"), {
    workerData: start,
    resourceLimits: { maxOldGenerationSizeMb: workerHeapMbMax },
    env: process.env,
    execArgv: [],
  });
  let over = false;
  const die = (reason: string) => {
    if (over) return;
    over = true;
    events.onDeath(reason);
  };
  worker.on("message", (message: WorkerMessage) => {
    if (!over) events.onMessage(message);
  });
  worker.on("error", (error) => die(error.message));
  worker.on("exit", (code) => die(`its thread ended with code ${code}`));
  worker.unref();
  return {
    send: (request) => worker.postMessage(request),
    kill() {
      over = true;
      void worker.terminate();
    },
  };
}

/** The Python side is python/reward_host.py: JSON lines on file descriptors 3 and 4, so that prints do no harm. */
function startPython(start: WorkerStart & { readonly spec: { readonly kind: string } }, events: WorkerEvents): ScoringWorker {
  const python = "python" in start.spec ? String(start.spec.python) : "python3";
  const host = fileURLToPath(new URL("../python/reward_host.py", import.meta.url));
  const child = spawn(python, ["-u", host], { stdio: ["ignore", "inherit", "inherit", "pipe", "pipe"] });
  const [input, output] = [child.stdio[3], child.stdio[4]];
  let over = false;
  const die = (reason: string) => {
    if (over) return;
    over = true;
    events.onDeath(reason);
  };
  child.on("error", (error) => die(`${python} did not start: ${error.message}`));
  // `close` and not `exit`: what it said last, why its code does not load for one, is read before its end is told.
  child.on("close", (code, signal) => die(`${python} ended with ${signal ?? `exit code ${code}`}`));
  const say = (message: object) => {
    if (input !== null && input !== undefined && "write" in input) input.write(`${JSON.stringify(message)}\n`);
  };
  if (input !== null && input !== undefined) input.on("error", (error) => die(error.message));
  if (output !== null && output !== undefined && "read" in output) {
    createInterface({ input: output }).on("line", (line) => {
      if (!over) events.onMessage(JSON.parse(line) as WorkerMessage);
    });
  }
  child.unref();
  say(start);
  return {
    send: say,
    kill() {
      over = true;
      child.kill("SIGKILL");
    },
  };
}
