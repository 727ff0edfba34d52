import type { Clock, Logger, Random, SlimeError } from "@slime/core";
import type { NvidiaSmi, Platform } from "@slime/platform";
import type { HostCommands } from "./host-commands.js";
import type { DeclaredResources } from "./resources.js";

/** A daemon's configuration, resolved. */
export interface NodeOptions {
  /** `host:port`, checked. */
  readonly headAddress: string;
  /** Parent of nodes' state directories. */
  readonly nodesDir: string;
  /** This node's own state directory instead; null: found or made below `nodesDir`. */
  readonly stateDir: string | null;
  readonly address: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly declared: DeclaredResources;
  /** The daemon's environment: inherited by its processes, and read for SLIME_SOCKET_DIR and SLIME_STORE_DIR. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  readonly poolSize: number;
  readonly binDirs: readonly string[];
  readonly commands: HostCommands;
  /** How long to wait for a head that does not answer yet. */
  readonly joinTimeoutMs: number;
  readonly stopGraceMs: number;
}

export interface NodeTools {
  readonly platform: Platform;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly smi?: NvidiaSmi;
  readonly signal?: AbortSignal;
}

/** Why a node ends without being told to by its own process. */
export interface NodeOver {
  readonly reason: string;
  readonly failure: SlimeError | null;
  readonly graceMs: number;
}

export interface RunningNode {
  readonly nodeId: string;
  readonly clusterId: string;
  readonly stateDir: string;
  readonly resources: Readonly<Record<string, number>>;
  /** Actors, jobs and hosts found running from an earlier life. */
  readonly adopted: number;
  /** Settles when the head wants it to end, refuses it, or has been away too long. */
  readonly over: Promise<NodeOver>;
  /** First welcome of a head. */
  readonly joined: Promise<void>;
  /** Ends everything of this node in order: processes, sockets, ports, shared memory; logs stay. Idempotent. */
  readonly stop: (reason: string, graceMs?: number) => Promise<void>;
}
