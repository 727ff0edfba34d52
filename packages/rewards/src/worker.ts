/** Runs in a worker thread of its own, so that a function that never returns can be ended. */
import { parentPort, workerData } from "node:worker_threads";
import { invariant, reasonOf } from "@slime/core";
import type { WorkerMessage, WorkerRequest, WorkerStart } from "./protocol.js";
import { loadScoring } from "./scoring.js";

const port = parentPort;
invariant(port !== null, "worker.ts runs in a worker thread");
const start = workerData as WorkerStart;
invariant(start.spec.kind !== "python", "Python functions have a process of their own");
const say = (message: WorkerMessage) => port.postMessage(message);

try {
  const score = await loadScoring(start.spec, start.args);
  port.on("message", async (request: WorkerRequest) => {
    say({ kind: "done", id: request.id, results: await score(request.samples) });
  });
  say({ kind: "ready" });
} catch (error) {
  say({ kind: "broken", reason: reasonOf(error) });
}
