import { rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { type Clock, type Logger, SlimeError, type Timer, unreachable } from "@slime/core";
import type { ObjectStore } from "@slime/object-store";
import {
  type Assignment,
  assignmentLogBase,
  type GpuDevice,
  type OwnershipRecord,
  type PortLeases,
  privateDirectory,
  writeFileAtomic,
} from "@slime/platform";
import { type ActorSpec, actorSocketName } from "@slime/rpc";
import { type NodeUp, StartActor, StartJob } from "@slime/rpc/control";
import type { Bundles } from "./bundles.js";
import { actorEnvironment, driverEnvironment, type NodeEnvironment, processEnvironment } from "./environment.js";
import type { HostCommands } from "./host-commands.js";
import type { HostServer } from "./host-server.js";
import { nodeLimits } from "./limits.js";
import type { NodeEffect, NodeEvent, NodeState } from "./node-state.js";
import type { LaunchOrder, ProcessKeeper } from "./process-keeper.js";

/** What the machine's effects are carried out with. */
export interface EffectTools {
  readonly clock: Clock;
  readonly log: Logger;
  readonly stateDir: string;
  readonly gpus: readonly GpuDevice[];
  readonly keeper: ProcessKeeper;
  readonly hosts: HostServer;
  readonly ports: Pick<PortLeases, "release">;
  readonly store: Pick<ObjectStore, "freeJob">;
  readonly environment: () => NodeEnvironment;
  readonly commands: HostCommands;
  readonly state: () => NodeState;
  readonly dispatch: (event: NodeEvent) => void;
  readonly report: (up: NodeUp) => void;
}

export interface EffectRunner extends Disposable {
  readonly run: (effect: NodeEffect) => void;
  /** Resolves once no launch is under way. */
  readonly settled: () => Promise<void>;
}

/** Carries effects out; what comes of them returns as events. */
export function effectRunner(tools: EffectTools): EffectRunner {
  const { clock, dispatch, keeper, log } = tools;
  const timers = new Set<Timer>();
  /** Launches under way; the value is an end that was asked for meanwhile. */
  const launching = new Map<string, Extract<NodeEffect, { kind: "end" }> | null>();
  let settling: Promise<unknown> = Promise.resolve();
  let savingBundles: Promise<void> = Promise.resolve();

  const onStarted = (record: OwnershipRecord) => {
    const { processId, identity } = record;
    if (record.kind === "host") tools.hosts.expect(processId, identity.pid);
    dispatch({ kind: "launched", processId, pid: identity.pid, logPath: logPathOf(tools.stateDir, record) });
  };
  const launch = (processId: string, order: () => Omit<LaunchOrder, "onStarted">) => {
    launching.set(processId, null);
    const work = Promise.resolve()
      .then(() => keeper.launch({ ...order(), onStarted }))
      .then(
        () => {
          const ending = launching.get(processId);
          launching.delete(processId);
          if (ending != null) run(ending);
        },
        (error: unknown) => {
          launching.delete(processId);
          log.error("process.start_failed", { processId, error });
          dispatch({ kind: "launch_failed", processId, message: error instanceof Error ? error.message : String(error) });
          return keeper.drop(processId);
        },
      );
    settling = Promise.all([settling, work]);
  };

  const assign = async (effect: Extract<NodeEffect, { kind: "assign" }>) => {
    const { processId, start } = effect;
    const spec = start.spec;
    if (spec === undefined) return;
    try {
      await keeper.assign(processId, assignmentOf(start), StartActor.encode(start).finish());
      await tools.hosts.call(processId, "host.assign", hostSpec(start, gpusOf(tools, start)), nodeLimits.hostCallMsMax);
    } catch (error) {
      // A host that lost its connection registers again and is told again; any other refusal is final.
      if (SlimeError.is(error, "actor.unavailable") || SlimeError.is(error, "wire.broken") || SlimeError.is(error, "call.cancelled"))
        return;
      log.error("actor.assign_failed", { processId, actorId: spec.actorId, error });
      run({ kind: "end", processId, graceMs: 0, reason: "it did not take its actor on" });
    }
  };

  const end = (effect: Extract<NodeEffect, { kind: "end" }>) => {
    const { processId, graceMs, reason } = effect;
    if (launching.has(processId)) return void launching.set(processId, effect);
    const ask = tools.hosts.connected(processId)
      ? () => tools.hosts.call(processId, "host.shutdown", { graceMs, reason }, graceMs + nodeLimits.hostCallMsMax)
      : null;
    keeper.end(processId, graceMs, ask);
  };

  const run = (effect: NodeEffect): void => {
    switch (effect.kind) {
      case "report":
        return tools.report(effect.up);
      case "launch_host":
        return launch(effect.processId, () => hostOrder(tools, effect));
      case "launch_driver":
        return launch(effect.processId, () => driverOrder(tools, effect));
      case "assign":
        return void assign(effect);
      case "end":
        return end(effect);
      case "drop_record":
        return void keeper.drop(effect.processId);
      case "release_ports":
        return void tools.ports.release(effect.holder);
      case "free_job":
        return freeJob(tools, effect.jobId);
      case "save_bundles":
        savingBundles = savingBundles
          .then(() => saveBundles(tools.stateDir, tools.state().bundles))
          .catch((error: unknown) => log.error("node.state_not_saved", { error }));
        return;
      case "timer": {
        const timer = clock.after(effect.delayMs, () => {
          timers.delete(timer);
          dispatch({ kind: "timer", timer: effect.timer });
        });
        timers.add(timer);
        return;
      }
      default:
        return unreachable(effect);
    }
  };
  return {
    run,
    async settled() {
      while (launching.size > 0) await settling;
      await savingBundles;
    },
    [Symbol.dispose]() {
      for (const timer of timers) timer.cancel();
      timers.clear();
    },
  };
}

/** The log people are pointed to: a driver's readable link, a host's stderr. */
export function logPathOf(stateDir: string, record: OwnershipRecord): string {
  return record.kind === "driver" && record.assignment !== null
    ? `${assignmentLogBase(join(stateDir, "logs"), record.assignment)}.log`
    : record.logs.stderr;
}

/** Whose a process is, for its ownership record. */
export function assignmentOf(start: StartActor): Assignment {
  const spec = start.spec;
  return {
    kind: "actor",
    jobId: spec?.jobId ?? "",
    actorId: spec?.actorId ?? "",
    incarnation: start.incarnation,
    name: spec?.name || spec?.className || "actor",
  };
}

function gpusOf(tools: EffectTools, start: StartActor): readonly GpuDevice[] {
  return start.gpuIndices.flatMap((index) => tools.gpus.find((gpu) => gpu.index === index) ?? []);
}

function hostOrder(tools: EffectTools, effect: Extract<NodeEffect, { kind: "launch_host" }>): Omit<LaunchOrder, "onStarted"> {
  const { processId, language, start } = effect;
  const spec = start?.spec;
  const host = tools.commands(language, { interpreter: spec?.python ?? "", module: spec?.module ?? "" });
  const own = start === null || spec === undefined ? {} : actorEnvironment(spec, start.incarnation, gpusOf(tools, start));
  // The node's marks last: nobody overrides them.
  const base = processEnvironment(tools.environment(), processId);
  const marks = Object.fromEntries(Object.entries(base).filter(([name]) => name.startsWith("SLIME_")));
  const env = { ...base, ...own, ...merged(host.env, { ...base, ...own }), ...marks };
  const assigned = start === null ? null : { assignment: assignmentOf(start), start: StartActor.encode(start).finish() };
  return { processId, kind: "host", command: host.command, env, cwd: tools.stateDir, assigned };
}

/** A host's own search path goes in front of what is there. */
function merged(own: Readonly<Record<string, string>>, before: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(own).map(([name, value]) => [name, name.endsWith("PATH") && before[name] ? `${value}:${before[name]}` : value]),
  );
}

function driverOrder(tools: EffectTools, effect: Extract<NodeEffect, { kind: "launch_driver" }>): Omit<LaunchOrder, "onStarted"> {
  const { processId, start } = effect;
  const spec = start.spec;
  if (spec === undefined) throw new SlimeError("process.start", "a job without a specification", { what: "driver" });
  const environment = tools.environment();
  const assignment: Assignment = { kind: "job", jobId: spec.jobId, attempt: start.attempt };
  return {
    processId,
    kind: "driver",
    command: ["/bin/sh", "-c", spec.entrypoint],
    env: { ...driverEnvironment(environment, processId, spec), SLIME_JOB_ATTEMPT: String(start.attempt) },
    cwd: spec.cwd || environment.base["PWD"] || homedir(),
    assigned: { assignment, start: StartJob.encode(start).finish() },
  };
}

/** The actor as its host is told of it. */
function hostSpec(start: StartActor, gpus: readonly GpuDevice[]): ActorSpec {
  const spec = start.spec;
  if (spec === undefined) throw new SlimeError("process.start", "an actor without a specification", { what: "actor" });
  const unit = 10_000;
  return {
    actorId: spec.actorId,
    incarnation: start.incarnation,
    jobId: spec.jobId,
    language: spec.host === "python" ? "python" : "node",
    module: spec.module,
    name: spec.name,
    exportName: spec.exportName,
    args: spec.arguments,
    concurrency: Math.max(1, spec.concurrency),
    concurrencyGroups: spec.concurrencyGroups,
    pendingCallsMax: spec.pendingCallsMax || 10_000,
    env: actorEnvironment(spec, start.incarnation, gpus),
    cwd: spec.cwd || null,
    resources: Object.fromEntries(Object.entries(spec.resources).map(([name, units]) => [name, units / unit])),
    gpus: gpus.map(({ index, uuid }) => ({ index, uuid })),
    placement: spec.placementGroupId === "" ? null : { placementGroupId: spec.placementGroupId, bundle: spec.bundleIndex },
  };
}

function freeJob(tools: EffectTools, jobId: string): void {
  try {
    tools.store.freeJob(jobId);
  } catch (error) {
    tools.log.warn("store.free_failed", { jobId, error });
  }
}

async function saveBundles(stateDir: string, bundles: Bundles): Promise<void> {
  await privateDirectory(stateDir);
  await writeFileAtomic(join(stateDir, "bundles.json"), `${JSON.stringify({ version: 1, bundles: [...bundles] })}\n`);
}

/** A killed actor leaves its socket's file behind. */
export async function removeActorSocket(socketDir: string, assignment: Assignment | null): Promise<void> {
  if (assignment?.kind === "actor") await rm(join(socketDir, actorSocketName(assignment.actorId, assignment.incarnation)), { force: true });
}
