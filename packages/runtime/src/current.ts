import { SlimeError } from "@slime/core";
import type { Runtime } from "./runtime.js";

let current: Runtime | null = null;

/** This process's runtime. @throws config.invalid before `init()`. */
export function currentRuntime(): Runtime {
  if (current !== null) return current;
  const issue = "this process is not part of a cluster yet: call `await init()` first (an actor's process is by itself)";
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}

/** One at a time. @throws conflict while another is in place. */
export function setCurrentRuntime(runtime: Runtime): void {
  if (current !== null)
    throw new SlimeError("conflict", "init() was called twice; call shutdown() in between", { kind: "runtime", id: current.parts.jobId });
  current = runtime;
}

/** Leaves none in place; null when there was none. */
export function takeCurrentRuntime(): Runtime | null {
  const before = current;
  current = null;
  return before;
}
