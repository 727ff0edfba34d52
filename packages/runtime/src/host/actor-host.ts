/**
 * The life of a host process: idle → constructing → alive → ending. Process facts (exit, environment, loading) are given, so
 * that tests play the daemon in memory. A1: a host becomes one actor in its life. A2: it ends once, with the first reason given.
 * A3: a constructor that failed is reported before the process ends with exit code 1.
 */
import { join } from "node:path";
import { type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import {
  type ActorSpec,
  actorSocketName,
  decodeValueFrame,
  type Handler,
  type Hello,
  type HostExit,
  type HostPhase,
  type HostShutdown,
  type Peer,
  type PeerOptions,
  type ServeOptions,
  type Server,
  toFailure,
} from "@slime/rpc";
import { runtimeLimits } from "../limits.js";
import type { Runtime } from "../runtime.js";
import { setHostedContext } from "./context.js";
import { daemonLink } from "./daemon-link.js";
import { constructActor, creationError, type HostedActor } from "./hosted-actor.js";

/** What the daemon set in the environment. */
export interface HostIdentity {
  readonly clusterId: string;
  readonly nodeId: string;
  readonly processId: string;
  readonly nodeSocket: string;
  readonly socketDir: string;
}

export interface ActorHostParts {
  readonly identity: HostIdentity;
  readonly pid: number;
  readonly runtimeVersion: string;
  readonly connect: (path: string, options: PeerOptions) => Promise<Peer>;
  readonly serve: (options: ServeOptions) => Promise<Server>;
  readonly loadClass: (spec: ActorSpec) => Promise<unknown>;
  /** Takes on the actor's environment and directory, before anything of its is loaded. */
  readonly become: (spec: ActorSpec) => void;
  readonly runtimeFor: (spec: ActorSpec, hello: Hello) => Runtime;
  readonly endChildren: () => Promise<void>;
  readonly exit: (code: number) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface ActorHost {
  readonly end: (reason: HostExit["reason"], exitCode: number, graceMs: number) => Promise<void>;
}

/** Without a word from a daemon about it. */
const orphanGraceMsDefault = 60_000;

type Life =
  | { readonly kind: "idle" }
  | { readonly kind: "constructing"; readonly spec: ActorSpec; readonly socketPath: string }
  | {
      readonly kind: "alive";
      readonly spec: ActorSpec;
      readonly socketPath: string;
      readonly actor: HostedActor;
      readonly server: Server;
      readonly runtime: Runtime;
    };

/** Starts looking for the daemon; everything else follows from what it says. */
export function startHost(parts: ActorHostParts): ActorHost {
  const { identity, clock, log } = parts;
  let life: Life = { kind: "idle" };
  let ending: Promise<void> | undefined;
  let phase: HostPhase | null = null;

  const link = daemonLink({
    connect: (handler) =>
      parts.connect(identity.nodeSocket, {
        hello: { clusterId: identity.clusterId, who: { kind: "host", id: identity.processId, incarnation: 0, pid: parts.pid } },
        handler,
        clock,
        log,
        heartbeat: null,
      }),
    registration: () => ({
      processId: identity.processId,
      pid: parts.pid,
      language: "node",
      runtimeVersion: parts.runtimeVersion,
      actor:
        life.kind === "idle"
          ? null
          : {
              actorId: life.spec.actorId,
              incarnation: life.spec.incarnation,
              jobId: life.spec.jobId,
              state: ending !== undefined ? "ending" : life.kind,
              socketPath: life.socketPath,
            },
    }),
    handler: (call) => answer(call.method, call.args),
    // Another daemon than the one that was told what it does.
    onLinked: () => {
      if (phase !== null) link.tell("host.phase", phase);
    },
    onOrphaned: () => void end("orphaned", 75, runtimeLimits.shutdownGraceMs),
    orphanGraceMs: orphanGraceMsDefault,
    clock,
    random: parts.random,
    log,
  });

  const answer = (method: string, args: unknown): unknown => {
    if (method === "host.assign") return assign(args as ActorSpec);
    if (method === "host.shutdown") {
      void end("shutdown", 0, (args as HostShutdown).graceMs, (args as HostShutdown).reason);
      return null;
    }
    throw new SlimeError("not_found", `a host answers host.assign and host.shutdown, not ${method}`, { kind: "method", id: method });
  };

  const assign = (spec: ActorSpec): null => {
    if (life.kind !== "idle") {
      if (life.spec.actorId === spec.actorId && life.spec.incarnation === spec.incarnation) return null;
      throw new SlimeError("conflict", `A1: this host is ${life.spec.actorId}#${life.spec.incarnation} already`, {
        kind: "host",
        id: identity.processId,
      });
    }
    if (ending !== undefined) throw new SlimeError("conflict", "this host is ending", { kind: "host", id: identity.processId });
    const socketPath = join(identity.socketDir, actorSocketName(spec.actorId, spec.incarnation));
    life = { kind: "constructing", spec, socketPath };
    void become(spec, socketPath).catch((error: unknown) => failed(spec, error));
    return null;
  };

  const become = async (spec: ActorSpec, socketPath: string) => {
    parts.become(spec);
    const hello: Hello = {
      clusterId: identity.clusterId,
      who: { kind: "actor", id: spec.actorId, incarnation: spec.incarnation, pid: parts.pid },
    };
    const runtime = parts.runtimeFor(spec, hello);
    const actorLog = log.child({ actorId: spec.actorId, incarnation: spec.incarnation });
    let actor: HostedActor;
    try {
      const actorClass = await parts.loadClass(spec);
      const args = decodeValueFrame(spec.args, runtime.hooks) as readonly unknown[];
      actor = await constructActor(actorClass, args, {
        spec,
        context: contextOf(identity, spec),
        store: runtime.store,
        log: actorLog,
        onPhase(text, waitsFor) {
          phase = { actorId: spec.actorId, incarnation: spec.incarnation, phase: text, waitsFor };
          link.tell("host.phase", phase);
        },
        onExit: () => void leave(),
        leasePorts: (count) => link.ask("host.leasePorts", { count }),
        onConstructing: setHostedContext,
      });
    } catch (error) {
      throw SlimeError.is(error, "actor.creation") ? error : creationError(spec, error);
    }
    const handler: Handler = actor.handler;
    const server = await parts.serve({ path: socketPath, hello, handler, hooks: runtime.hooks, clock, log: actorLog, heartbeat: null });
    if (ending !== undefined) return void server.close();
    life = { kind: "alive", spec, socketPath, actor, server, runtime };
    log.info("actor.alive", { actorId: spec.actorId, incarnation: spec.incarnation, className: spec.exportName });
    await link.report("host.alive", { actorId: spec.actorId, incarnation: spec.incarnation, socketPath, pid: parts.pid });
  };

  const failed = async (spec: ActorSpec, error: unknown) => {
    log.error("actor.creation", { actorId: spec.actorId, error: error instanceof Error ? error.stack : String(error) });
    const origin = `${identity.nodeId}/${spec.actorId}#${spec.incarnation}/pid ${parts.pid}`;
    await link.report("host.failed", {
      actorId: spec.actorId,
      incarnation: spec.incarnation,
      failure: toFailure(error, origin, spec.exportName),
    });
    await end("self", 1, runtimeLimits.shutdownGraceMs);
  };

  /** The actor ends itself: what waits is finished first. */
  const leave = async () => {
    if (life.kind === "alive") await life.actor.drain();
    await end("self", 0, runtimeLimits.shutdownGraceMs);
  };

  const end = (reason: HostExit["reason"], exitCode: number, graceMs: number, why: string = reason): Promise<void> =>
    (ending ??= (async () => {
      const before = life;
      log.info("host.ending", { reason, why });
      const limit = clock.after(graceMs, () => parts.exit(exitCode));
      if (before.kind === "alive") {
        await before.actor.shutdown(why);
        await before.server.close({ drainMs: 200, reason: why });
        await before.runtime.close();
      }
      await parts.endChildren();
      await link.report("host.exit", {
        actorId: before.kind === "idle" ? null : before.spec.actorId,
        incarnation: before.kind === "idle" ? 0 : before.spec.incarnation,
        reason,
        exitCode,
      });
      await link.close();
      limit.cancel();
      parts.exit(exitCode);
    })());

  return { end };
}

function contextOf(identity: HostIdentity, spec: ActorSpec) {
  const rank = spec.env["SLIME_GANG_RANK"];
  const size = spec.env["SLIME_GANG_SIZE"];
  return {
    actorId: spec.actorId,
    jobId: spec.jobId,
    nodeId: identity.nodeId,
    clusterId: identity.clusterId,
    incarnation: spec.incarnation,
    gpus: spec.gpus,
    placement: spec.placement,
    rank: rank === undefined ? null : Number(rank),
    gangSize: size === undefined ? null : Number(size),
  };
}
