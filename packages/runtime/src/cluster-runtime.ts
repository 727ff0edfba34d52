import { readFileSync } from "node:fs";
import { type Logger, systemClock, systemRandom } from "@slime/core";
import { connect, type Hello, hostEnvironment } from "@slime/rpc";
import type { ControlClient } from "./control/control-client.js";
import { machineStore, storeDirOf } from "./machine-store.js";
import { createRuntime, type Runtime } from "./runtime.js";

/** Of the client hello: raised when the control plane changes meaning. */
export const controlProtocol = 1;
const version = "0.1.0";

type Env = Readonly<Record<string, string | undefined>>;

/** Opens the link to the head; gRPC is loaded here and not before. */
export async function openControl(options: {
  readonly address: string;
  readonly clusterId: string;
  readonly jobId: string | null;
  readonly actorId: string;
  readonly nodeId: string;
  readonly log: Logger;
}): Promise<ControlClient> {
  const [{ controlClient }, { grpcDialer }] = await Promise.all([import("./control/control-client.js"), import("./control/grpc-link.js")]);
  const { address, log, ...who } = options;
  return controlClient({
    dialer: grpcDialer(address),
    hello: { protocol: controlProtocol, ...who, pid: process.pid, version, bootId: bootId() },
    exitCode: () => Number(process.exitCode ?? 0),
    clock: systemClock,
    random: systemRandom,
    log,
  });
}

/** Of this machine's current boot, as the head compares it with daemons'; empty where there is no /proc. */
function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "";
  }
}

/** The runtime of an actor's process: it speaks to other actors at once, and to the head when it must. */
export function hostRuntime(options: { readonly env: Env; readonly jobId: string; readonly hello: Hello; readonly log: Logger }): Runtime {
  const { env, jobId, hello, log } = options;
  const address = env[hostEnvironment.headAddress] ?? "";
  return createRuntime({
    jobId,
    hello,
    control: () =>
      openControl({ address, clusterId: hello.clusterId, jobId, actorId: hello.who.id, nodeId: env[hostEnvironment.nodeId] ?? "", log }),
    connect,
    store: (hooks) => machineStore(env[hostEnvironment.storeDir] ?? storeDirOf(hello.clusterId, env), () => jobId, hooks),
    clock: systemClock,
    random: systemRandom,
    log,
  });
}
