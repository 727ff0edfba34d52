import { rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { ProcessId, SlimeError, systemRandom, type Clock, type Logger, type Random } from "@slime/core";
import { ObjectStore } from "@slime/object-store";
import { killMarked, portLeases, socketDirOf, storeDirOf, type NvidiaSmi, type Platform } from "@slime/platform";
import { hostEnvironment, nodeSocketName } from "@slime/rpc";
import type { NodeDown, NodeHello, NodeWelcome } from "@slime/rpc/control";
import { adoptionEvent, readBundles, settle } from "./adoption.js";
import type { StepContext } from "./draft.js";
import { effectRunner, logPathOf, removeActorSocket, type EffectRunner } from "./effects.js";
import type { NodeEnvironment } from "./environment.js";
import { headLink, type HeadLink } from "./head-link.js";
import { pulse } from "./heartbeat.js";
import type { HostCommands } from "./host-commands.js";
import { hostServer } from "./host-server.js";
import { clusterAt, waitForCluster } from "./join.js";
import { controlProtocol, nodeLimits } from "./limits.js";
import { newDirectory, saveNodeRecord, takeOver, type NodeDirectory } from "./node-directory.js";
import { emptyNode, type NodeEvent, type NodeState } from "./node-state.js";
import { processKeeper } from "./process-keeper.js";
import { inventory } from "./reports.js";
import { nodeResources, type DeclaredResources } from "./resources.js";
import { enterSite } from "./site.js";
import { fill, step } from "./step.js";

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

/** Joins a machine to a cluster: claims or takes over a state directory, adopts what runs, links to the head. */
export async function startNode(options: NodeOptions, tools: NodeTools): Promise<RunningNode> {
  const directory = await claim(options, tools);
  try {
    return await runNode(options, tools, directory);
  } catch (error) {
    await directory.lock.release();
    throw error;
  }
}

/** What makes two joins the same node: everything that was declared. */
function signatureOf(options: NodeOptions): string {
  return JSON.stringify([options.name, options.declared, Object.entries(options.labels).sort()]);
}

async function claim(options: NodeOptions, tools: NodeTools): Promise<NodeDirectory> {
  const { clock, log, platform } = tools;
  const find = { root: options.stateDir ?? options.nodesDir, exact: options.stateDir !== null, headAddress: options.headAddress, signature: signatureOf(options), processes: platform.processes };
  const found = await takeOver(find);
  if (found !== null) {
    // A head that answers knows its cluster; one that is away is the one we knew.
    const cluster = await clusterAt(options.headAddress, 1_000, clock);
    if (cluster === null || cluster === found.record.clusterId) return found;
    log.warn("node.cluster_changed", { was: found.record.clusterId, is: cluster });
    await killMarked({ name: hostEnvironment.nodeId, value: found.record.nodeId }, { processes: platform.processes, clock, graceMs: nodeLimits.termGraceMs });
    await rm(join(found.path, "processes"), { recursive: true, force: true });
    await saveNodeRecord(found.path, { ...found.record, left: true });
    await found.lock.release();
  }
  const clusterId = await waitForCluster(options.headAddress, options.joinTimeoutMs, clock, log, tools.signal);
  return newDirectory({ ...find, clusterId, random: tools.random });
}

async function runNode(options: NodeOptions, tools: NodeTools, directory: NodeDirectory): Promise<RunningNode> {
  const { clock, platform, random } = tools;
  const { nodeId, clusterId, incarnation } = directory.record;
  const stateDir = directory.path;
  const log = tools.log.child({ nodeId });
  const bootId = await platform.processes.bootId();
  const resources = await nodeResources(options.declared, nodeId, platform, tools.smi);
  const socketDir = socketDirOf(clusterId, options.env["SLIME_SOCKET_DIR"]);
  const storeDir = options.env["SLIME_STORE_DIR"] || storeDirOf(clusterId, platform.sharedMemoryRoot);
  const site = await enterSite(socketDir, nodeId, platform.processes);
  const store = new ObjectStore({ dir: storeDir });
  store.sweep({ isAlive });
  const nodeSocket = join(socketDir, nodeSocketName(nodeId));
  const environment: { current: NodeEnvironment } = {
    current: { base: options.env, clusterId, nodeId, headAddress: options.headAddress, httpAddress: "", eventsEndpoint: "", socketDir, storeDir, nodeSocket, binDirs: options.binDirs },
  };
  const context: StepContext = { nodeId, gpus: resources.gpus, poolSize: options.poolSize, newProcessId: () => ProcessId.create(random), wallMs: clock.wallMs };
  let state: NodeState = emptyNode;
  const link: { current: HeadLink | null } = { current: null };
  const runner: { current: EffectRunner | null } = { current: null };
  const queue: NodeEvent[] = [];
  let busy = false;
  const advance = (next: ReturnType<typeof step>) => {
    state = next.state;
    for (const effect of next.effects) runner.current?.run(effect);
  };
  const dispatch = (event: NodeEvent) => {
    queue.push(event);
    if (busy) return;
    busy = true;
    try {
      for (let at = queue.shift(); at !== undefined; at = queue.shift()) advance(step(state, at, context));
    } finally {
      busy = false;
    }
  };
  // What ended before the machine has heard of it is told once it has.
  let early: NodeEvent[] | null = [];
  const keeper = await processKeeper({
    stateDir,
    clusterId,
    nodeId,
    platform,
    clock,
    log,
    onEnded(record, death) {
      void removeActorSocket(socketDir, record.assignment);
      const event: NodeEvent = { kind: "ended", processId: record.processId, pid: record.identity.pid, death };
      if (early !== null) return void early.push(event);
      hosts.forget(record.processId);
      dispatch(event);
    },
  });
  const ports = await portLeases(site.portsDir, nodeId, { random, keep: (holder) => keeper.record(holder) !== null });
  const spoken = new Set<string>();
  const adopted = await keeper.adopt();
  const hosts = await hostServer({
    path: nodeSocket,
    clusterId,
    nodeId,
    platform,
    clock,
    log,
    isKnown: (processId) => keeper.record(processId) !== null || state.hosts.has(processId),
    onEvent(event) {
      dispatch(event);
      if (event.kind === "host_registered") spoken.add(event.processId);
    },
    leasePorts: (processId, count) => ports.lease(processId, count),
  });
  runner.current = effectRunner({
    clock,
    log,
    stateDir,
    gpus: resources.gpus,
    keeper,
    hosts,
    ports,
    store,
    environment: () => environment.current,
    commands: options.commands,
    state: () => state,
    dispatch,
    report: (up) => link.current?.send(up),
  });
  dispatch({ kind: "adopted_bundles", bundles: await readBundles(stateDir, log) });
  for (const each of adopted) {
    dispatch(adoptionEvent(each, logPathOf(stateDir, each.record)));
    if (each.record.kind === "host") hosts.expect(each.record.processId, each.record.identity.pid);
  }
  const ended = early;
  early = null;
  for (const event of ended) dispatch(event);
  await settle(adopted, () => state, (processId) => spoken.has(processId), (processId) => keeper.record(processId) !== null, clock);

  let endOver: (over: NodeOver) => void = () => {};
  const over = new Promise<NodeOver>((resolve) => void (endOver = resolve));
  let setJoined: () => void = () => {};
  const joined = new Promise<void>((resolve) => void (setJoined = resolve));
  const heart = pulse({ platform, clock, gpus: resources.gpus, storeBytesUsed: () => store.usage().usedBytes, ...(tools.smi === undefined ? {} : { smi: tools.smi }) });
  const hello = (): NodeHello => ({
    protocol: controlProtocol,
    clusterId,
    nodeId,
    incarnation,
    hostname: options.name || hostname(),
    address: options.address,
    bootId,
    pid: process.pid,
    version: options.version,
    resources: { ...resources.units },
    gpus: [...resources.gpus],
    labels: { ...options.labels },
    nodeSocket,
    ...inventory(state),
    logDir: join(stateDir, "logs"),
  });
  const onWelcome = (welcome: NodeWelcome) => {
    log.info("node.joined", { clusterId, epoch: welcome.epoch, incarnation, head: options.headAddress });
    environment.current = { ...environment.current, httpAddress: welcome.httpAddress, eventsEndpoint: welcome.eventsEndpoint };
    setJoined();
    if (!state.stopping) advance(fill(state, context));
  };
  link.current = headLink({
    address: options.headAddress,
    clock,
    random: systemRandom,
    log,
    hello,
    heartbeat: heart.read,
    onWelcome,
    onMessage: (down) => {
      const event = headEvent(down);
      if (event?.kind === "shutdown") endOver({ reason: "the head asked this node to stop", failure: null, graceMs: event.graceMs });
      else if (event !== null) dispatch(event);
    },
    onRefused: (failure) => endOver({ reason: "the head refused this node", failure, graceMs: 0 }),
    onDown(awayMs) {
      if (awayMs < nodeLimits.headAbsenceMsMax) return;
      const minutes = Math.round(awayMs / 60_000);
      endOver({ reason: "no head", failure: new SlimeError("head.unavailable", `no head at ${options.headAddress} for ${minutes} min: everything of this node was ended; start the head, then join again`, { address: options.headAddress }), graceMs: options.stopGraceMs });
    },
  });

  const stopNow = async (reason: string, graceMs: number) => {
    log.info("node.stopping", { reason, graceMs });
    dispatch({ kind: "stop", graceMs, reason });
    await runner.current?.settled();
    await keeper.empty();
    const mark = { name: hostEnvironment.nodeId, value: nodeId };
    const left = await killMarked(mark, { processes: platform.processes, clock, graceMs: 500 });
    if (left.length > 0) log.error("node.processes_left", { pids: left });
    await link.current?.close({ message: { $case: "goodbye", value: { reason } } });
    runner.current?.[Symbol.dispose]();
    heart[Symbol.dispose]();
    await hosts[Symbol.asyncDispose]();
    await keeper[Symbol.asyncDispose]();
    for (const holder of new Set(ports.held().values())) ports.release(holder);
    if (await site.leave()) store.destroy();
    await rm(join(stateDir, "processes"), { recursive: true, force: true });
    await rm(join(stateDir, "bundles.json"), { force: true });
    await saveNodeRecord(stateDir, { ...directory.record, left: true });
    await directory.lock.release();
    log.info("node.stopped", { reason });
  };
  let stopping: Promise<void> | null = null;
  const stop = (reason: string, graceMs: number = options.stopGraceMs) => (stopping ??= stopNow(reason, graceMs));
  return { nodeId, clusterId, stateDir, resources: resources.units, adopted: adopted.length, over, joined, stop };
}

/** A message of the head as an event of the machine. */
function headEvent(down: NodeDown): NodeEvent | { readonly kind: "shutdown"; readonly graceMs: number } | null {
  const message = down.message;
  switch (message?.$case) {
    case "startActor":
      return { kind: "start_actor", start: message.value };
    case "stopActor":
      return { kind: "stop_actor", ...message.value };
    case "startJob":
      return { kind: "start_job", start: message.value };
    case "stopJob":
      return { kind: "stop_job", ...message.value };
    case "forgetJob":
      return { kind: "forget_job", jobId: message.value.jobId };
    case "prepare":
      return { kind: "prepare", id: message.value.placementGroupId, generation: message.value.generation, bundles: message.value.bundles, ttlMs: message.value.ttlMs };
    case "commit":
      return { kind: "commit", id: message.value.placementGroupId, generation: message.value.generation };
    case "release":
      return { kind: "release", id: message.value.placementGroupId, generation: message.value.generation };
    case "shutdown":
      return { kind: "shutdown", graceMs: message.value.graceMs };
    default:
      return null; // of a newer head; it knows our protocol and does not count on it
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
