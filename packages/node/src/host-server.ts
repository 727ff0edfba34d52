import { type Clock, type Logger, SlimeError } from "@slime/core";
import type { Platform } from "@slime/platform";
import {
  type HostAlive,
  type HostExit,
  type HostFailed,
  type HostPhase,
  type HostRegistration,
  type HostWelcome,
  type IncomingCall,
  type NodeToHost,
  type Peer,
  serve,
  toFailure,
} from "@slime/rpc";
import { nodeLimits } from "./limits.js";
import type { NodeEvent } from "./node-state.js";
import { silenceWatch } from "./silence-watch.js";

export interface HostServer extends AsyncDisposable {
  /** Calls a host. @throws `actor.unavailable` when it is not connected, or what the call fails with. */
  readonly call: <M extends keyof NodeToHost>(
    processId: string,
    method: M,
    args: NodeToHost[M]["args"],
    timeoutMs: number,
  ) => Promise<void>;
  readonly connected: (processId: string) => boolean;
  /** From here on the process owes us a registration; without one it is judged by what it does. */
  readonly expect: (processId: string, pid: number) => void;
  readonly forget: (processId: string) => void;
}

export interface HostServerOptions {
  readonly path: string;
  readonly clusterId: string;
  readonly nodeId: string;
  readonly platform: Platform;
  readonly clock: Clock;
  readonly log: Logger;
  /** Known processes of this node; others are refused. */
  readonly isKnown: (processId: string) => boolean;
  readonly onEvent: (event: NodeEvent) => void;
  readonly leasePorts: (processId: string, count: number) => Promise<readonly number[]>;
}

/** The daemon's socket: hosts register here and are told what to be. */
export async function hostServer(options: HostServerOptions): Promise<HostServer> {
  const { clock, log, onEvent } = options;
  const peers = new Map<string, Peer>();
  const silence = silenceWatch({
    platform: options.platform,
    clock,
    onHang: (processId, message) => onEvent({ kind: "host_hangs", processId, message }),
  });
  const welcome: HostWelcome = { nodeId: options.nodeId, orphanGraceMs: nodeLimits.orphanGraceMs };

  const register = (processId: string, call: IncomingCall): HostWelcome => {
    const registration = call.args as HostRegistration;
    peers.set(processId, call.peer);
    silence.heard(processId);
    void call.peer.closed.then(({ reason }) => {
      if (peers.get(processId) !== call.peer) return;
      peers.delete(processId);
      log.debug("host.disconnected", { processId, reason });
      silence.silent(processId, registration.pid);
    });
    onEvent({
      kind: "host_registered",
      processId,
      pid: registration.pid,
      language: registration.language === "python" ? "python" : "node",
      actor: registration.actor,
    });
    return welcome;
  };
  const handler = (call: IncomingCall): unknown => {
    const processId = call.peer.remote.who.id;
    switch (call.method) {
      case "host.register":
        return register(processId, call);
      case "host.alive": {
        const { incarnation, pid, socketPath } = call.args as HostAlive;
        onEvent({ kind: "host_alive", processId, incarnation, pid, socket: socketPath });
        return null;
      }
      case "host.failed": {
        const { failure } = call.args as HostFailed;
        onEvent({
          kind: "host_failed",
          processId,
          failure: Buffer.from(JSON.stringify(failure ?? toFailure(new Error("construction failed")))),
        });
        return null;
      }
      case "host.exit":
        onEvent({ kind: "host_exit", processId, reason: (call.args as HostExit).reason });
        return null;
      case "host.phase": {
        const { phase, waitsFor } = call.args as HostPhase;
        onEvent({ kind: "host_phase", processId, phase, waitingFor: waitsFor ?? "" });
        return null;
      }
      case "host.leasePorts":
        return options.leasePorts(
          processId,
          Math.min(1_000, Math.max(1, Number((call.args as { readonly count?: unknown } | null)?.count ?? 1))),
        );
      default:
        throw new SlimeError("not_found", `a daemon has no call ${call.method}`, { kind: "call", id: call.method });
    }
  };
  const server = await serve({
    path: options.path,
    hello: { clusterId: options.clusterId, who: { kind: "node", id: options.nodeId, incarnation: 0, pid: process.pid } },
    handler,
    clock,
    log,
    heartbeat: { pingMs: nodeLimits.hostPingMs, silenceMsMax: nodeLimits.hostSilenceMsMax },
    accept: ({ who }) => {
      if (who.kind !== "host" || !options.isKnown(who.id))
        throw new SlimeError("not_found", `${who.kind} ${who.id} was not started by this node`, { kind: "process", id: who.id });
    },
  });
  return {
    async call(processId, method, args, timeoutMs) {
      const peer = peers.get(processId);
      if (peer === undefined)
        throw new SlimeError("actor.unavailable", `process ${processId} is not connected`, {
          actorId: processId,
          incarnation: 0,
          reason: "not connected",
        });
      await peer.call(method, args, { timeoutMs, urgent: true });
    },
    connected: (processId) => peers.has(processId),
    expect(processId, pid) {
      // It may have been quicker than whoever expects it, and it says hello once.
      if (!peers.has(processId)) silence.silent(processId, pid);
    },
    forget(processId) {
      peers.delete(processId);
      silence.heard(processId);
    },
    async [Symbol.asyncDispose]() {
      silence[Symbol.dispose]();
      await server.close();
    },
  };
}
