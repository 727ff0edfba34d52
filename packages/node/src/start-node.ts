import { rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { ProcessId, SlimeError, sleep } from "@slime/core";
import { ObjectStore } from "@slime/object-store";
import { exists, killMarked, portLeases, socketDirOf, storeDirOf } from "@slime/platform";
import { hostEnvironment, nodeSocketName } from "@slime/rpc";
import type { NodeHello, NodeWelcome } from "@slime/rpc/control";
import { adoptionEvent, readBundles, settle } from "./adoption.js";
import { claimDirectory } from "./claim.js";
import type { StepContext } from "./draft.js";
import { type EffectRunner, effectRunner, logPathOf, removeActorSocket } from "./effects.js";
import type { NodeEnvironment } from "./environment.js";
import { headEvent } from "./head-events.js";
import { type HeadLink, headLink } from "./head-link.js";
import { pulse } from "./heartbeat.js";
import { hostServer } from "./host-server.js";
import { controlProtocol, nodeLimits } from "./limits.js";
import { type NodeDirectory, saveNodeRecord } from "./node-directory.js";
import type { NodeOptions, NodeOver, NodeTools, RunningNode } from "./node-options.js";
import { emptyNode, type NodeEvent, type NodeState } from "./node-state.js";
import { processKeeper } from "./process-keeper.js";
import { inventory } from "./reports.js";
import { nodeResources } from "./resources.js";
import { enterSite } from "./site.js";
import { step } from "./step.js";

/** Joins a machine to a cluster: claims or takes over a state directory, adopts what runs, links to the head. */
export async function startNode(options: NodeOptions, tools: NodeTools): Promise<RunningNode> {
  const directory = await claimDirectory(options, tools);
  try {
    return await runNode(options, tools, directory);
  } catch (error) {
    await directory.lock.release();
    throw error;
  }
}

async function runNode(options: NodeOptions, tools: NodeTools, directory: NodeDirectory): Promise<RunningNode> {
  const { clock, platform, random } = tools;
  const { nodeId, clusterId, incarnation } = directory.record;
  const stateDir = directory.path;
  const log = tools.log.child({ nodeId });
  const bootId = await platform.processes.bootId();
  const resources = await nodeResources(options.declared, nodeId, platform, tools.smi);
  const socketDir = socketDirOf(clusterId, options.env["SLIME_SOCKET_DIR"]);
  const storeDir = storeDirOf(clusterId, platform.sharedMemoryRoot, options.env["SLIME_STORE_DIR"]);
  const site = await enterSite(socketDir, nodeId, platform.processes);
  const store = new ObjectStore({ dir: storeDir });
  store.sweep({ isAlive: exists });
  const nodeSocket = join(socketDir, nodeSocketName(nodeId));
  const environment: { current: NodeEnvironment } = {
    current: {
      base: options.env,
      clusterId,
      nodeId,
      headAddress: options.headAddress,
      httpAddress: "",
      eventsEndpoint: "",
      socketDir,
      storeDir,
      nodeSocket,
      binDirs: options.binDirs,
    },
  };
  const context: StepContext = {
    nodeId,
    gpus: resources.gpus,
    poolSize: options.poolSize,
    newProcessId: () => ProcessId.create(random),
    wallMs: clock.wallMs,
  };
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
      store.sweep({ isAlive: exists });
      const event: NodeEvent = { kind: "ended", processId: record.processId, pid: record.identity.pid, death };
      if (early !== null) return void early.push(event);
      hosts.forget(record.processId);
      dispatch(event);
    },
  });
  const ports = await portLeases(site.portsDir, nodeId, { random, keep: (holder) => keeper.record(holder) !== null });
  const spoken = new Set<string>();
  const adopted = await keeper.adopt();
  const bundles = await readBundles(stateDir, log);
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
  // Without a pause since hosts can register: one that came back before it was adopted would be ended as a stranger.
  dispatch({ kind: "adopted_bundles", bundles });
  for (const each of adopted) {
    dispatch(adoptionEvent(each, logPathOf(stateDir, each.record)));
    if (each.record.kind === "host") hosts.expect(each.record.processId, each.record.identity.pid);
  }
  const ended = early;
  early = null;
  for (const event of ended) dispatch(event);
  await settle(
    adopted,
    () => state,
    (processId) => spoken.has(processId),
    (processId) => keeper.record(processId) !== null,
    clock,
  );

  let endOver: (over: NodeOver) => void = () => {};
  const over = new Promise<NodeOver>((resolve) => void (endOver = resolve));
  let setJoined: () => void = () => {};
  const joined = new Promise<void>((resolve) => void (setJoined = resolve));
  const heart = pulse({
    platform,
    clock,
    gpus: resources.gpus,
    storeBytesUsed: () => store.usage().usedBytes,
    ...(tools.smi === undefined ? {} : { smi: tools.smi }),
  });
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
    if (!state.stopping) dispatch({ kind: "welcomed" });
  };
  link.current = headLink({
    address: options.headAddress,
    clock,
    random,
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
      endOver({
        reason: "no head",
        failure: new SlimeError(
          "head.unavailable",
          `no head at ${options.headAddress} for ${minutes} min: everything of this node was ended; start the head, then join again`,
          { address: options.headAddress },
        ),
        graceMs: options.stopGraceMs,
      });
    },
  });

  const stopNow = async (reason: string, graceMs: number) => {
    log.info("node.stopping", { reason, graceMs });
    dispatch({ kind: "stop", graceMs, reason });
    await runner.current?.settled();
    await Promise.race([keeper.empty(), sleep(clock, graceMs + nodeLimits.stopMarginMs)]);
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
