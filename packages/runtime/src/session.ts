import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { type Logger, ProcessId, SlimeError, systemClock, systemRandom } from "@slime/core";
import { connect, type Hello, hostEnvironment } from "@slime/rpc";
import { openControl } from "./cluster-runtime.js";
import { refuseSecond, setCurrentRuntime, takeCurrentRuntime } from "./current.js";
import { lineLogger } from "./line-logger.js";
import { machineStore, storeDirOf } from "./machine-store.js";
import { createRuntime } from "./runtime.js";

export interface InitOptions {
  /** The head's control address, "127.0.0.1:6380". Default: SLIME_HEAD_ADDRESS, then head.json in `$SLIME_HOME/head`. */
  readonly address?: string;
  /** How long to wait for the head. Default 30,000. */
  readonly timeoutMs?: number;
  /** Default: warnings and errors, as JSON lines on stderr. */
  readonly log?: Logger;
}

/** This process's membership. Disposing is `shutdown()`. */
export interface Session extends AsyncDisposable {
  readonly clusterId: string;
  /** The job whose process this is; an interactive process gets one of its own, which ends with it. */
  readonly jobId: string;
  readonly headAddress: string;
  readonly httpAddress: string;
  /** Where the machine's objects lie. */
  readonly storeDir: string;
}

/**
 * Joins this process to a cluster, as the driver of its job.
 * @throws head.unavailable, peer.incompatible, file.missing when no address is known, conflict when called twice.
 */
export async function init(options: InitOptions = {}): Promise<Session> {
  const { env } = process;
  refuseSecond(env[hostEnvironment.actorId] ?? "");
  const log = options.log ?? lineLogger(systemClock, (line) => process.stderr.write(line), "warn");
  const address = options.address ?? env[hostEnvironment.headAddress] ?? addressOfHome(env["SLIME_HOME"] ?? join(homedir(), ".slime"));
  const control = await openControl({
    address,
    clusterId: env[hostEnvironment.clusterId] ?? "",
    jobId: env[hostEnvironment.jobId] ?? null,
    actorId: "",
    nodeId: env[hostEnvironment.nodeId] ?? "",
    log,
  });
  try {
    const welcome = await control.welcome({ timeoutMs: options.timeoutMs ?? 30_000 });
    const { clusterId, jobId } = welcome;
    const hello: Hello = {
      clusterId,
      who: { kind: "driver", id: env[hostEnvironment.processId] ?? ProcessId.create(systemRandom), incarnation: 0, pid: process.pid },
    };
    const storeDir = env[hostEnvironment.storeDir] ?? storeDirOf(clusterId, env);
    const runtime = createRuntime({
      jobId,
      hello,
      control: () => Promise.resolve(control),
      connect,
      store: (hooks) => machineStore(storeDir, () => jobId, hooks),
      clock: systemClock,
      random: systemRandom,
      log,
    });
    // Opened already, so that shutdown closes it even if nothing else uses it.
    await runtime.control();
    setCurrentRuntime(runtime);
    return { clusterId, jobId, headAddress: address, httpAddress: welcome.httpAddress, storeDir, [Symbol.asyncDispose]: shutdown };
  } catch (error) {
    await control.close();
    throw error;
  }
}

/** Leaves the cluster: pending calls fail, connections close. An interactive job ends, and its actors with it. Idempotent. */
export async function shutdown(): Promise<void> {
  await takeCurrentRuntime()?.close();
}

/** @throws file.missing */
function addressOfHome(home: string): string {
  const path = join(home, "head", "head.json");
  try {
    const { grpcAddress } = JSON.parse(readFileSync(path, "utf8")) as { readonly grpcAddress?: unknown };
    if (typeof grpcAddress === "string") return grpcAddress;
    throw new TypeError("it has no grpcAddress");
  } catch (error) {
    throw new SlimeError(
      "file.missing",
      `no head is known: pass address, set ${hostEnvironment.headAddress}, or start one here with \`slime-head start\` (looked in ${path})`,
      { path, wanted: "the address of the head" },
      { cause: error },
    );
  }
}
