import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { factsOf, SlimeError, sleep, systemClock } from "@slime/core";
import { initialWeights, readModelConfig, writeHfCheckpoint } from "@slime/embedded";
import { HttpEngine } from "@slime/router";
import {
  distInitPorts,
  HttpServerEngineAdapter,
  probe,
  probeCapabilities,
  type RunningServer,
  type ServerCapabilities,
  type ServerRequest,
  serverArgTable,
  serverSpec,
  startServer,
  startWeightHelper,
  type WeightHelper,
} from "@slime/sglang";
import type { EngineParts, EngineProcess } from "./engine-process.js";
import type { EngineStart } from "./engine-protocol.js";
import { modelBounds } from "./model-bounds.js";
import { leasePortsInARow } from "./ports-in-a-row.js";
import type { ExternalEngineSpec, ServerSettings, SglangCommon, SglangEngineSpec } from "./sglang-spec.js";
import { WatchedEngine } from "./watched-engine.js";

/** Only this machine reaches a server: there is no TLS and no token between router and engines yet. */
const host = "127.0.0.1";
/** A pause by abort takes a second. */
const pauseMsMax = 30_000;
/** An external server that is away is asked so often; one that is paused by somebody answers after 20 s that it is unwell. */
const externalProbeEveryMs = 1_000;
const externalProbeMsMax = 25_000;

/**
 * Starts an SGLang server on this process's GPUs and makes an engine of it: adapter, weight helper, watch.
 * On the later machines of an engine it is only a process to be owned.
 * @throws what `startServer` throws, with the fix.
 */
export async function startSglangProcess(spec: SglangEngineSpec, plan: EngineStart, parts: EngineParts): Promise<EngineProcess> {
  await mkdir(spec.directory, { recursive: true });
  const { settings } = spec;
  const modelPath = await modelOf(spec, settings.modelPath, plan.node.rank);
  const request = await requestOf({ ...settings, modelPath }, plan, parts);
  const table = await serverArgTable(spec.python, { env: { ...process.env, ...spec.env } });
  const server = await startServer(serverSpec(request, { table }), {
    clock: systemClock,
    log: parts.log,
    logFile: join(spec.directory, plan.node.rank === 0 ? "server.log" : `server-node-${plan.node.rank}.log`),
    signal: parts.signal,
    onPhase: parts.phase,
    inherited: process.env,
  });
  const over = server.exited.then(({ reason }) => `its server ended: ${reason}`);
  if (plan.node.rank > 0)
    return { started: { url: null, pid: server.pid, bootstrapPort: null }, engine: null, over, close: () => server.kill() };
  try {
    const capabilities = await probeCapabilities(server.url);
    return await engineOf(spec, { url: server.url, modelPath, capabilities, server, gpuUuids: plan.gpuUuids }, parts);
  } catch (error) {
    await server.kill();
    throw error;
  }
}

/** The server at its place: with ports of this machine, and the meeting point where several processes or their parts need one. */
async function requestOf(settings: ServerSettings, { node, gpuUuids }: EngineStart, { leasePorts }: EngineParts): Promise<ServerRequest> {
  const prefills = settings.engine.role === "prefill";
  const [http = 0, nccl = 0, bootstrap = 0] = await leasePorts(prefills ? 3 : 2);
  const inARow = distInitPorts({ ...settings.passThrough, ...settings.overrides }, node.count);
  const distInit = node.distInitAddress ?? (inARow === 0 ? null : `${host}:${await leasePortsInARow(leasePorts, inARow)}`);
  return {
    ...settings,
    node: { rank: node.rank, count: node.count, gpuUuids, host },
    ports: { http, nccl, bootstrap: prefills ? bootstrap : null, distInit },
  };
}

/** Makes an engine of a server that runs already. It is never ended; this process ends where it would be restarted. */
export async function joinExternalServer(spec: ExternalEngineSpec, parts: EngineParts): Promise<EngineProcess> {
  await mkdir(spec.directory, { recursive: true });
  parts.phase(`waiting for ${spec.url}`);
  const capabilities = await answerOf(spec.url, parts.signal);
  return engineOf(
    spec,
    { url: spec.url, modelPath: await modelOf(spec, spec.modelPath, 0), capabilities, server: null, gpuUuids: [] },
    parts,
  );
}

/** What the server says once it is there; whoever runs it may be restarting it. */
async function answerOf(url: string, signal: AbortSignal): Promise<ServerCapabilities> {
  for (;;) {
    try {
      const capabilities = await probeCapabilities(url);
      await letGo(url);
      const health = await probe(url, "/health_generate", { clock: systemClock, timeoutMs: externalProbeMsMax, signal });
      if (health.kind === "answered" && health.status === 200) return capabilities;
    } catch (error) {
      if (!factsOf(error).retryable) throw error;
    }
    await sleep(systemClock, externalProbeEveryMs, signal);
  }
}

/** A life of ours before this one may have ended between pause and resume; going on twice does no harm. */
async function letGo(url: string): Promise<void> {
  const client = new HttpEngine(url);
  try {
    await client.resume();
  } finally {
    await client.close();
  }
}

interface Served {
  readonly url: string;
  readonly modelPath: string;
  readonly capabilities: ServerCapabilities;
  /** Null: not ours to end. */
  readonly server: RunningServer | null;
  readonly gpuUuids: readonly string[];
}

async function engineOf(
  spec: SglangCommon,
  { url, modelPath, capabilities, server, gpuUuids }: Served,
  parts: EngineParts,
): Promise<EngineProcess> {
  const bounds = await modelBounds(modelPath);
  const helper = spec.transport === "tensor" ? helperOf(spec, gpuUuids, parts) : null;
  const adapter = new HttpServerEngineAdapter({
    url,
    capabilities,
    vocabularySize: bounds.vocabularySize,
    contextLength: capabilities.contextLength ?? bounds.positions,
    transport: spec.transport,
    helper,
    modelPath,
    scratch: join(spec.directory, "weights"),
    clock: systemClock,
    log: parts.log,
    // A server that hangs in a push must not hold the others' for longer.
    limits: { pauseTimeoutMs: pauseMsMax },
  });
  const engine = new WatchedEngine({ adapter, exited: server?.exited ?? null, onHealth: parts.health, clock: systemClock });
  return {
    started: {
      url,
      pid: server?.pid ?? process.pid,
      bootstrapPort: capabilities.role.kind === "prefill" ? capabilities.role.bootstrapPort : null,
    },
    engine,
    over: engine.over,
    async close() {
      // First the watch: what it sees from here on is our own doing.
      await engine.close();
      await Promise.all([server?.kill(), helper?.close()]);
    },
  };
}

/** It lays tensors out on the server's first card, or in the machine's memory where there is none. */
function helperOf({ python, env, directory }: SglangCommon, [first = ""]: readonly string[], { log }: EngineParts): WeightHelper {
  const inherited = Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return startWeightHelper({
    python,
    env: { ...Object.fromEntries(inherited), ...env, CUDA_VISIBLE_DEVICES: first },
    logFile: join(directory, "weight-helper.log"),
    log,
  });
}

/**
 * A directory with weights of the model's shapes: its own, or one that is written here, with the trainer's initial weights. A server starts from
 * it, and pushes are held against it; the first push replaces these weights before anybody sees them.
 */
async function modelOf({ fromSeed: seed, directory: own }: SglangCommon, modelPath: string, nodeRank: number): Promise<string> {
  if (seed === null) return modelPath;
  // Each process of an engine writes its own: they start together.
  const directory = join(own, `initial-${seed}-${nodeRank}`);
  try {
    const config = await readModelConfig(modelPath);
    await writeHfCheckpoint(directory, config, initialWeights(config, seed), modelPath);
  } catch (error) {
    // Written by an earlier life of this engine.
    if (!SlimeError.is(error, "conflict")) throw error;
  }
  return directory;
}
