import { SlimeError } from "@slime/core";
import type { Runtime } from "./runtime.js";

let current: Runtime | null = null;

/** This process's runtime. @throws config.invalid before `init()`. */
export function currentRuntime(): Runtime {
  if (current !== null) return current;
  const issue = "this process is not part of a cluster yet: call `await init()` first (an actor's process is by itself)";
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}

/** Refuses a second `init()`. `actorId`: of the actor whose process this is, if it is one. @throws conflict while a runtime is in place. */
export function refuseSecond(actorId: string): void {
  if (current === null) return;
  const message =
    actorId === ""
      ? "init() was called twice; call shutdown() in between"
      : `init() was called in the process of ${actorId}, which is part of the cluster by itself: the module of its class runs a driver too. Put the class and its defineActors line into a file of their own, and the driver beside it`;
  throw new SlimeError("conflict", message, { kind: "runtime", id: current.parts.jobId });
}

/** One at a time. @throws conflict while another is in place. */
export function setCurrentRuntime(runtime: Runtime): void {
  refuseSecond("");
  current = runtime;
}

/** Leaves none in place; null when there was none. */
export function takeCurrentRuntime(): Runtime | null {
  const before = current;
  current = null;
  return before;
}
