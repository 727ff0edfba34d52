import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, SlimeError, silentLogger } from "@slime/core";
import { startEmbeddedEngine } from "@slime/embedded";
import { realGpus } from "@slime/platform";
import { suggestions } from "@slime/rl-config";
import { type ServerRequest, serverArgTable, serverSpec, startServer } from "@slime/sglang";
import { Asker } from "./ask.js";
import type { AnsweredBy } from "./settings.js";

/** Only this machine asks. */
const host = "127.0.0.1";

/** An engine that answers, and ends with us where we started it. */
export interface AnsweringEngine extends AsyncDisposable {
  readonly url: string;
  /** For a person: "the embedded engine". */
  readonly name: string;
  /** Where its tokenizer lies on this machine; null: not known. */
  readonly modelDirectory: string | null;
  /** Prompt and answer together; null: not known. */
  readonly contextLength: number | null;
}

export interface OpenEngineParts {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** What the engine does while it starts. */
  readonly onPhase: (phase: string) => void;
}

/**
 * Starts the engine that is to answer, or finds the one that runs.
 * @throws SlimeError with the fix: `checkpoint.invalid`, `file.missing`, `config.invalid`, `engine.unavailable`, what `startServer` throws.
 */
export function openEngine(by: AnsweredBy, parts: OpenEngineParts): Promise<AnsweringEngine> {
  switch (by.kind) {
    case "embedded":
      return openEmbedded(by.hfCheckpoint, parts);
    case "sglang":
      return openSglang(by, parts);
    case "url":
      return openRunning(by, parts);
  }
}

async function openEmbedded(directory: string, { clock, onPhase, signal }: OpenEngineParts): Promise<AnsweringEngine> {
  onPhase("loading weights");
  const running = await startEmbeddedEngine({ model: { kind: "directory", path: directory }, clock });
  try {
    signal.throwIfAborted();
    if (running.engine.weightVersion === "none")
      throw new SlimeError(
        "file.missing",
        `${directory} has no weights (model.safetensors, or the files of model.safetensors.index.json): name a directory that was trained, a run's checkpoints/step-N/model for one`,
        { path: join(directory, "model.safetensors"), wanted: "--hf-checkpoint" },
      );
  } catch (error) {
    await running.close();
    throw error;
  }
  return {
    url: running.url,
    name: "the embedded engine",
    modelDirectory: directory,
    contextLength: Math.min(running.engine.config.positionsMax, running.engine.kvTokensMax),
    [Symbol.asyncDispose]: running.close,
  };
}

/** A server of its own, with its log in a directory that stays when it fails. */
async function openSglang(by: Extract<AnsweredBy, { kind: "sglang" }>, parts: OpenEngineParts): Promise<AnsweringEngine> {
  parts.onPhase("asking SGLang for its settings");
  const { env } = process;
  const table = await serverArgTable(by.python, { env });
  if (table === null) {
    const issue = `there is no SGLang in ${by.python}: --sglang-python must name a Python in which sglang is installed`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  const spec = serverSpec(await requestOf(by), { table, suggest: suggestions });
  const logs = mkdtempSync(join(tmpdir(), "slime-generate-"));
  const server = await startServer(spec, {
    clock: parts.clock,
    log: silentLogger,
    logFile: join(logs, "server.log"),
    signal: parts.signal,
    onPhase: parts.onPhase,
    inherited: env,
  });
  try {
    const { contextLength } = await lookedUp(server.url, parts);
    return {
      url: server.url,
      name: "the SGLang server",
      modelDirectory: by.hfCheckpoint,
      contextLength,
      async [Symbol.asyncDispose]() {
        await server.kill();
        rmSync(logs, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await server.kill();
    throw error;
  }
}

async function requestOf({ python, hfCheckpoint, args, gpus }: Extract<AnsweredBy, { kind: "sglang" }>): Promise<ServerRequest> {
  const there = await realGpus();
  const wanted = gpus ?? Math.min(1, there.length);
  if (wanted > there.length) {
    const issue = `--num-gpus ${wanted}: this machine has ${there.length} GPUs`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  const [http = 0, nccl = 0] = await freePorts(2);
  return {
    python,
    modelPath: hfCheckpoint,
    env: {},
    passThrough: args,
    overrides: {},
    run: { seed: 0, gpusPerNode: Math.max(1, wanted), fp16: false, trustRemoteCode: false, returnRoutedExperts: false },
    engine: { role: "regular", rank: 0, gpus: Math.max(1, wanted), offload: false, frozen: true, encoderUrls: [] },
    node: { rank: 0, count: 1, gpuUuids: there.slice(0, wanted).map(({ uuid }) => uuid), host },
    ports: { http, nccl, bootstrap: null, distInit: null },
  };
}

async function openRunning({ url, hfCheckpoint }: Extract<AnsweredBy, { kind: "url" }>, parts: OpenEngineParts): Promise<AnsweringEngine> {
  const { modelPath, contextLength } = await lookedUp(url, parts).catch((cause: unknown) => {
    if (!SlimeError.is(cause, "engine.unavailable")) throw cause;
    const { reason } = cause.details;
    throw new SlimeError(
      "engine.unavailable",
      `--url ${url}: no engine or router answers there (${reason}): is it started, and is this its address?`,
      {
        engine: url,
        reason,
      },
    );
  });
  const here = modelPath !== null && existsSync(join(modelPath, "tokenizer.json")) ? modelPath : null;
  return { url, name: url, modelDirectory: hfCheckpoint ?? here, contextLength, [Symbol.asyncDispose]: () => Promise.resolve() };
}

/** What an engine, or a router in front of some, says of itself. @throws SlimeError `engine.unavailable` when nobody is there. */
async function lookedUp(
  url: string,
  { clock }: OpenEngineParts,
): Promise<{ readonly modelPath: string | null; readonly contextLength: number | null }> {
  await using asker = new Asker(url, { clock, timeoutMs: 10_000 });
  const model = await asker.page("/model_info");
  const server = await asker.page("/server_info");
  const path = model?.["model_path"] ?? server?.["model_path"];
  const context = server?.["context_length"] ?? server?.["max_req_input_len"];
  return {
    modelPath: typeof path === "string" ? path : null,
    contextLength: typeof context === "number" && context > 0 ? context : null,
  };
}

/** Ports that are free now, all different. */
async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const server = createServer();
      return new Promise<typeof server>((resolve, reject) => server.once("error", reject).listen(0, host, () => resolve(server)));
    }),
  );
  return servers.map((server) => {
    const address = server.address();
    server.close();
    return typeof address === "object" && address !== null ? address.port : 0;
  });
}
