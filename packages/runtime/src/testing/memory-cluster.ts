/**
 * A cluster in one process for tests of what runs on actors: actors live in this process, calls go through the real codec over
 * in-memory wires, placement always fits. Crashes on demand. Reading `ctx()` after an `await` does not work here: one process, many actors.
 */
import { type Clock, type DeathRecord, type Logger, type Random, SlimeError, seededRandom, silentLogger, systemClock } from "@slime/core";
import { decodeValueFrame, type Hello, type ActorSpec as HostSpec, openPeer, type Peer, type PeerOptions } from "@slime/rpc";
import type { ActorSpec } from "@slime/rpc/control";
import { type MemoryPair, memoryPair } from "@slime/rpc/testing";
import { type ActorView, unbornView } from "../actor-view.js";
import { setCurrentRuntime, takeCurrentRuntime } from "../current.js";
import { definedClass } from "../define-actor.js";
import type { HandleControls } from "../handle-types.js";
import { constructActor, creationError, type HostedActor } from "../host/hosted-actor.js";
import type { ControlPort, PlacementGroupView } from "../ports.js";
import { createRuntime, type Runtime } from "../runtime.js";
import { memoryObjects } from "./memory-store.js";

export interface MemoryClusterOptions {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Logger;
  /** Loads a class that `defineActors` did not name in this process. Default: `import(module)`. */
  readonly loadClass?: (module: string, exportName: string) => Promise<unknown>;
}

export interface MemoryCluster extends AsyncDisposable {
  readonly runtime: Runtime;
  /** Ends a life as SIGKILL would: its calls get no answer. It restarts if its options allow. */
  readonly crash: (handle: HandleControls) => Promise<void>;
  /** Breaks all connections to an actor; it lives on. */
  readonly cut: (handle: HandleControls) => void;
  /** Holds back everything an actor says, until called with false. */
  readonly stall: (handle: HandleControls, stalled?: boolean) => void;
  readonly objects: () => number;
}

interface Life {
  readonly actor: HostedActor;
  readonly runtime: Runtime;
  readonly socket: string;
}

interface Cell {
  readonly spec: ActorSpec;
  view: ActorView;
  life: Life | null;
  readonly wires: Set<MemoryPair>;
  stalled: boolean;
}

const clusterId = "cluster_0000000000000001";
const jobId = "job_0000000000000001";
const nodeId = "node_0000000000000001";

/** Starts the cluster and makes it this process's runtime. Dispose it before the next. */
export function memoryCluster(options: MemoryClusterOptions = {}): MemoryCluster {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? seededRandom(1);
  const log = options.log ?? silentLogger;
  const objects = memoryObjects(random);
  const cells = new Map<string, Cell>();
  const followers = new Map<string, ((view: ActorView) => void)[]>();
  const groups = new Map<string, PlacementGroupView>();
  const kv = new Map<string, Uint8Array>();

  const tell = (cell: Cell, change: Partial<ActorView>) => {
    cell.view = { ...cell.view, ...change };
    for (const hear of followers.get(cell.spec.actorId) ?? []) hear(cell.view);
  };

  const start = async (cell: Cell) => {
    const { spec } = cell;
    const incarnation = cell.view.incarnation + 1;
    // As the head says it: a life that is being started has its own number before it is ALIVE.
    tell(cell, { incarnation });
    const socket = `${spec.actorId}-${incarnation}`;
    const hello: Hello = { clusterId, who: { kind: "actor", id: spec.actorId, incarnation, pid: incarnation } };
    const runtime = runtimeOf(hello);
    const hostSpec: HostSpec = {
      actorId: spec.actorId,
      incarnation,
      jobId,
      language: "node",
      module: spec.module,
      name: spec.name,
      exportName: spec.exportName,
      args: spec.arguments,
      concurrency: spec.concurrency,
      concurrencyGroups: spec.concurrencyGroups,
      pendingCallsMax: spec.pendingCallsMax,
      env: spec.env,
      cwd: null,
      resources: spec.resources,
      gpus: [],
      placement: null,
    };
    const rank = spec.env["SLIME_GANG_RANK"];
    try {
      const load = options.loadClass ?? (async (module, name) => ((await import(module)) as Readonly<Record<string, unknown>>)[name]);
      const actorClass = definedClass(spec.module, spec.exportName) ?? (await load(spec.module, spec.exportName));
      const args = decodeValueFrame(Uint8Array.from(spec.arguments), runtime.hooks) as readonly unknown[];
      const actor = await constructActor(actorClass, args, {
        spec: hostSpec,
        context: {
          actorId: spec.actorId,
          jobId,
          nodeId,
          clusterId,
          incarnation,
          gpus: [],
          placement: null,
          rank: rank === undefined ? null : Number(rank),
          gangSize: rank === undefined ? null : Number(spec.env["SLIME_GANG_SIZE"]),
        },
        store: runtime.store,
        log,
        onPhase() {},
        leasePorts: async (count) => Array.from({ length: count }, (_, at) => 30_000 + at),
        onExit: () => void end(cell, "KILLED", "it ended itself", true),
      });
      if (cell.view.state === "DEAD") return void (await actor.shutdown("killed"));
      cell.life = { actor, runtime, socket };
      tell(cell, { state: "ALIVE", socket, nodeId, pid: incarnation, waiting: [] });
    } catch (error) {
      tell(cell, {
        state: "DEAD",
        socket: null,
        creationFailure: SlimeError.is(error, "actor.creation") ? error : creationError(hostSpec, error),
      });
    }
  };

  const end = async (cell: Cell, reason: DeathRecord["reason"], message: string, orderly: boolean) => {
    const { life, spec } = cell;
    cell.life = null;
    if (orderly) await life?.actor.shutdown(message);
    for (const wire of cell.wires) wire.cut(message);
    cell.wires.clear();
    await life?.runtime.close();
    const death: DeathRecord = {
      reason,
      message,
      pid: cell.view.pid,
      exitCode: null,
      signal: orderly ? null : "SIGKILL",
      oom: false,
      stderrTail: [],
      nodeId,
      atMs: clock.wallMs(),
    };
    const restarts = !orderly && (spec.restartsMax < 0 || cell.view.restarts < spec.restartsMax);
    if (!restarts) return tell(cell, { state: "DEAD", socket: null, death });
    tell(cell, { state: "RESTARTING", socket: null, death, restarts: cell.view.restarts + 1 });
    await start(cell);
  };

  const dial = async (socket: string, dialler: PeerOptions): Promise<Peer> => {
    const cell = [...cells.values()].find(({ life }) => life?.socket === socket);
    const life = cell?.life;
    if (cell === undefined || life === null || life === undefined)
      throw new SlimeError("wire.broken", `nobody listens at ${socket}`, { peer: socket, reason: "gone" });
    const wires = memoryPair(clock);
    cell.wires.add(wires);
    if (cell.stalled) wires.stall("ba");
    const hello: Hello = { clusterId, who: { kind: "actor", id: cell.spec.actorId, incarnation: cell.view.incarnation, pid: 1 } };
    const common = { clock, log, endOfTurn: queueMicrotask, heartbeat: null, callTimeoutMs: null };
    const served = openPeer(wires.b, { ...common, hello, handler: life.actor.handler, hooks: life.runtime.hooks }, () => undefined);
    served.catch(() => undefined);
    return openPeer(wires.a, { ...common, ...dialler, endOfTurn: queueMicrotask });
  };

  const cellOf = (actorId: string): Cell => {
    const cell = cells.get(actorId);
    if (cell === undefined) throw new SlimeError("not_found", `no actor ${actorId}`, { kind: "actor", id: actorId });
    return cell;
  };

  const control: ControlPort = {
    async createActor(spec) {
      const known = cells.get(spec.actorId);
      if (known !== undefined) return known.view;
      const cell: Cell = {
        spec,
        view: { ...unbornView({ actorId: spec.actorId, jobId, className: spec.className, name: spec.name }), state: "PENDING_CREATION" },
        life: null,
        wires: new Set(),
        stalled: false,
      };
      cells.set(spec.actorId, cell);
      void start(cell);
      return cell.view;
    },
    async killActor({ actorId }) {
      const cell = cellOf(actorId);
      if (cell.view.state !== "DEAD") await end(cell, "KILLED", "it was killed", true);
    },
    followActor(actorId, onView) {
      followers.set(actorId, [...(followers.get(actorId) ?? []), onView]);
      onView(cellOf(actorId).view);
    },
    async createPlacementGroup({ placementGroupId, bundles }) {
      const rows = bundles.map((_, bundle) => ({ bundle, nodeId, address: "127.0.0.1", gpuIndex: null, gpuUuid: null, gpus: [] }));
      const view: PlacementGroupView = { placementGroupId, state: "CREATED", generation: 1, rows, waiting: [], failure: null };
      groups.set(placementGroupId, view);
      return view;
    },
    followPlacementGroup(placementGroupId, onView) {
      const view = groups.get(placementGroupId);
      if (view !== undefined) onView(view);
    },
    async removePlacementGroup(placementGroupId) {
      groups.delete(placementGroupId);
      for (const cell of cells.values())
        if (cell.spec.placementGroupId === placementGroupId && cell.view.state !== "DEAD")
          await end(cell, "PLACEMENT_REMOVED", "its placement group was removed", true);
    },
    nodes: async () => [
      {
        nodeId,
        state: "ALIVE",
        hostname: "localhost",
        address: "127.0.0.1",
        pid: 1,
        resources: { CPU: 8 },
        available: { CPU: 8 },
        gpus: [],
        labels: {},
      },
    ],
    async kvPut({ key, value, ifAbsent }) {
      const found = kv.has(key);
      if (!(found && ifAbsent)) kv.set(key, value);
      return { found };
    },
    kvGet: async (key) => kv.get(key) ?? null,
    kvDelete: async (key) => void kv.delete(key),
    kvList: async (prefix) => [...kv.keys()].filter((key) => key.startsWith(prefix)).sort(),
    reportPhase() {},
    async close() {},
  };

  function runtimeOf(hello: Hello): Runtime {
    return createRuntime({ jobId, hello, control: async () => control, connect: dial, store: objects.storeFor, clock, random, log });
  }

  const runtime = runtimeOf({ clusterId, who: { kind: "driver", id: "proc_0000000000000001", incarnation: 0, pid: 1 } });
  setCurrentRuntime(runtime);
  return {
    runtime,
    crash: (handle) => end(cellOf(handle.actorId), "WORKER_DIED", "crashed by the test", false),
    cut(handle) {
      const { wires } = cellOf(handle.actorId);
      for (const wire of wires) wire.cut("cut by the test");
      wires.clear();
    },
    stall(handle, stalled = true) {
      const cell = cellOf(handle.actorId);
      cell.stalled = stalled;
      for (const wire of cell.wires) wire.stall("ba", stalled);
    },
    objects: objects.size,
    async [Symbol.asyncDispose]() {
      takeCurrentRuntime();
      await runtime.close();
      for (const cell of cells.values()) if (cell.view.state !== "DEAD") await end(cell, "JOB_ENDED", "the test is over", true);
    },
  };
}
