import { SlimeError, silentLogger, systemClock, systemRandom } from "@slime/core";
import { connect } from "@slime/rpc";
import { unbornView } from "../actor-view.js";
import type { ActorHandle } from "../handle-types.js";
import { runtimeLimits } from "../limits.js";
import { createRuntime, type Runtime } from "../runtime.js";
import { memoryObjects } from "./memory-store.js";

/** A handle of an actor that lives at a known socket, in a process without a head: for tests and benchmarks of hosts. */
export function attachTo<T>(where: {
  readonly clusterId: string;
  readonly actorId: string;
  readonly incarnation: number;
  readonly socket: string;
}): { readonly handle: ActorHandle<T>; readonly runtime: Runtime } {
  const runtime = createRuntime({
    jobId: "job_0000000000000000",
    hello: { clusterId: where.clusterId, who: { kind: "tool", id: "attached", incarnation: 0, pid: process.pid } },
    control: () => Promise.reject(new SlimeError("head.unavailable", "there is no head here", { address: "none" })),
    connect,
    store: memoryObjects(systemRandom).storeFor,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
  });
  const unborn = unbornView({ actorId: where.actorId, jobId: "job_0000000000000000", className: "attached", name: "" });
  const defaults = { callTimeoutMs: runtimeLimits.callTimeoutMsDefault, pendingCallsMax: runtimeLimits.pendingCallsMax };
  const handle = runtime.adopt({ ...unborn, state: "ALIVE", incarnation: where.incarnation, socket: where.socket }, defaults);
  // The caller says which class it is; the actor refuses what it has not.
  return { handle: handle as ActorHandle<T>, runtime };
}
