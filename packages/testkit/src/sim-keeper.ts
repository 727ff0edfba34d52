import { type Clock, SlimeError, type Timer } from "@slime/core";
import { type HostServer, nodeLimits, type ProcessKeeper } from "@slime/node/machine";
import type { OwnershipRecord } from "@slime/platform";
import { StartActor, StartJob } from "@slime/rpc/control";
import type { DaemonHome } from "./daemon-home.js";
import type { SimProcess } from "./sim-process.js";

/** The daemon whose processes these are: its machine, and its own clock, which stands still while it is frozen. */
export interface KeptDaemon {
  readonly machine: DaemonHome;
  readonly clock: Clock;
}

const launchMs = 5;
const diskMs = 1;
const reapMs = 20;

/** A daemon's processes, kept by the simulated machine: records are durable, ends are seen after a moment. */
export function simKeeper(daemon: KeptDaemon): ProcessKeeper {
  const { machine, clock } = daemon;
  const endings = new Map<string, { untilMs: number; timer: Timer | null }>();
  const wait = (ms: number) => new Promise<void>((resolve) => void clock.after(ms, resolve));
  return {
    record: (processId) => (machine.isLiving(processId) ? (machine.records.get(processId)?.record ?? null) : null),
    async launch(order) {
      await wait(launchMs);
      const pid = machine.nextPid();
      const record: OwnershipRecord = {
        version: 1,
        processId: order.processId,
        kind: order.kind,
        clusterId: "",
        nodeId: machine.nodeId,
        identity: { bootId: `${machine.boots}`, pid, startTime: "0" },
        parent: { bootId: `${machine.boots}`, pid, startTime: "0" },
        command: order.command,
        assignment: order.assigned?.assignment ?? null,
        logs: { stdout: "/sim/out", stderr: "/sim/err" },
        exitFile: "/sim/exit",
        startedAtMs: clock.wallMs(),
      };
      const start = order.assigned?.start ?? null;
      machine.records.set(order.processId, { record, start });
      const actor = start !== null && order.kind === "host" ? StartActor.decode(start) : null;
      const job = start !== null && order.kind === "driver" ? StartJob.decode(start) : null;
      machine.spawn({ processId: order.processId, kind: order.kind, pid, actor, job });
      order.onStarted(record);
    },
    async assign(processId, assignment, start) {
      await wait(diskMs);
      const known = machine.records.get(processId);
      if (known !== undefined) machine.records.set(processId, { record: { ...known.record, assignment }, start });
    },
    adopt: async () => [],
    end(processId, graceMs, ask) {
      const process = machine.processOf(processId);
      if (process === null || !process.living) return;
      const untilMs = clock.nowMs() + graceMs;
      const before = endings.get(processId);
      if (before !== undefined && before.untilMs <= untilMs) return;
      before?.timer?.cancel();
      if (before === undefined && ask !== null && graceMs > 0) ask().catch(() => process.terminate());
      else if (graceMs > 0) process.terminate();
      // A host that was asked has the grace, and then what SIGTERM gives, before SIGKILL.
      const killMs = graceMs === 0 ? 0 : graceMs + (ask === null ? 0 : nodeLimits.termGraceMs);
      endings.set(processId, { untilMs, timer: clock.after(killMs, () => process.kill()) });
    },
    async drop(processId) {
      machine.records.delete(processId);
    },
    empty: async () => {},
    async [Symbol.asyncDispose]() {},
  };
}

/** After how long a daemon knows that a process is gone, ms. */
export const seenGoneMs = reapMs;

/** The daemon's calls to the hosts that are connected to it. */
export function simHosts(daemon: KeptDaemon, find: (processId: string) => SimProcess | undefined): HostServer {
  const { clock, machine } = daemon;
  return {
    async call(processId, method) {
      const process = find(processId);
      if (process === undefined)
        throw new SlimeError("actor.unavailable", `process ${processId} is not connected`, {
          actorId: processId,
          incarnation: 0,
          reason: "not connected",
        });
      await new Promise<void>((resolve) => void clock.after(1, resolve));
      if (method === "host.shutdown") process.shutdown();
      const start = machine.records.get(processId)?.start ?? null;
      if (method === "host.assign" && start !== null) process.assign(StartActor.decode(start));
    },
    connected: (processId) => find(processId) !== undefined,
    expect() {},
    forget() {},
    async [Symbol.asyncDispose]() {},
  };
}
