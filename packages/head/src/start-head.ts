/** A whole head: store, decisions, control plane, management API, events. Starts in the order that makes its promises true, stops in reverse. */
import { join } from "node:path";
import { type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import { bindEventSocket, eventPublisher } from "@slime/telemetry";
import { serveControl } from "./grpc/control-server.js";
import { openHead } from "./head.js";
import type { Head } from "./head-api.js";
import { serveManagement } from "./http/management-server.js";
import { headRegistry } from "./http/metrics.js";
import { statusJson } from "./http/state-json.js";
import { packageStore } from "./packages/package-store.js";
import { retain } from "./packages/retention.js";
import { lmdbStore } from "./store/lmdb-store.js";
import type { StateStore } from "./store/store.js";

export interface StartHeadOptions {
  /** Address to bind; loopback only. */
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly httpPort: number;
  /** Address to advertise. */
  readonly nodeIp: string;
  readonly stateDirectory: string;
  readonly version: string;
}

export interface StartHeadDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Default: LMDB in the state directory. */
  readonly store?: StateStore;
  /** Called when an administrator asked the head to end and it has done what comes before. */
  readonly onStop: (reason: string) => void;
}

export interface RunningHead extends AsyncDisposable {
  readonly head: Head;
  /** host:port of the control plane, as advertised. */
  readonly address: string;
  /** host:port of the management API. */
  readonly httpAddress: string;
  readonly eventsEndpoint: string;
  /** Stops jobs, actors and daemons. @returns nodes that did not leave in time. */
  readonly stopCluster: (graceMs: number) => Promise<readonly string[]>;
  readonly close: () => Promise<void>;
}

/** Longest a cluster may take to end beyond its grace. */
const stopWaitMs = 30_000;

/** @throws SlimeError `address.refused`, `port.taken`, `state.damaged`, `unsupported`, `disk.full`. */
export async function startHead(options: StartHeadOptions, deps: StartHeadDependencies): Promise<RunningHead> {
  for (const address of [options.host, options.nodeIp]) refuseBeyondLoopback(address);
  const { clock, random, log } = deps;
  const registry = headRegistry();
  const closers: (() => Promise<void>)[] = [];
  const closeAll = async (): Promise<void> => {
    for (const close of closers.splice(0).reverse()) await close();
  };
  try {
    const { socket, endpoint } = await bindEventSocket();
    const events = eventPublisher(socket, {
      source: "head",
      clock,
      tap: ({ event, fields }) => log.info(event, { ...fields }),
      onDrop: () => registry.add("slime_events_dropped_total", 1),
    });
    closers.push(() => events.close());
    // The epoch is durable before anything listens (D2).
    const head = await openHead({
      store: deps.store ?? lmdbStore({ directory: options.stateDirectory }),
      clock,
      random,
      log,
      events,
      onCommit: (durationMs) => registry.observe("slime_head_commit_seconds", durationMs / 1_000),
      onInput: (kind) => registry.add("slime_head_events_total", 1, { kind }),
    });
    closers.push(() => head.close());
    const stopCluster = async (graceMs: number): Promise<readonly string[]> => {
      const { left } = (await head.ask({ kind: "cluster.stop", graceMs, waitMs: graceMs + stopWaitMs })) as {
        readonly left: readonly string[];
      };
      return left;
    };
    const packages = packageStore(options.stateDirectory);
    const stopRetaining = retain({ state: head.state, packages, clock, log });
    closers.push(async () => stopRetaining());
    const management = await serveManagement(head, {
      host: options.host,
      port: options.httpPort,
      clock,
      random,
      version: options.version,
      packages,
      registry,
    });
    closers.push(() => management.close());
    const httpAddress = `${options.nodeIp}:${management.port}`;
    head.announce({ address: `${options.nodeIp}:${options.port}`, httpAddress, eventsEndpoint: endpoint });
    const control = await serveControl(head, {
      host: options.host,
      port: options.port,
      log,
      statusJson: () => statusJson(head.state, { nowMs: head.nowMs(), readOnly: head.readOnly() }),
      async stop({ graceMs, leaveNodes }) {
        if (!leaveNodes) await stopCluster(graceMs);
        // The answer travels first.
        clock.after(50, () => deps.onStop(leaveNodes ? "asked to end alone" : "asked to end the cluster"));
      },
    });
    closers.push(() => control.close());
    const address = `${options.nodeIp}:${control.port}`;
    head.announce({ address, httpAddress, eventsEndpoint: endpoint });
    events.publish("head.started", { clusterId: head.clusterId, epoch: head.epoch, address, httpAddress });
    return { head, address, httpAddress, eventsEndpoint: endpoint, stopCluster, close: closeAll, [Symbol.asyncDispose]: closeAll };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** Where a head's facts for others lie: `head.json` in its state directory. */
export const headFile = (stateDirectory: string): string => join(stateDirectory, "head.json");

function refuseBeyondLoopback(address: string): void {
  if (/^(127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost|::1)$/.test(address)) return;
  throw new SlimeError(
    "address.refused",
    `${address} is not loopback: a head beyond this machine needs TLS and join tokens, which this version lacks; leave it out, or use 127.0.0.1`,
    { address },
  );
}
