import { access } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, type Logger, type Random, silentLogger, systemClock, systemRandom } from "@slime/core";
import { readModelConfig } from "../hf-checkpoint.js";
import type { ModelConfig } from "../model-config.js";
import { initialWeights } from "../weights.js";
import { EmbeddedEngine } from "./engine.js";
import { serveEngine } from "./http-server.js";
import { defaultEngineLimits, type EngineLimits } from "./options.js";
import { type EngineTokenizer, readTokenizer } from "./tokenizer.js";

/** Which model is served, and with what weights it starts. */
export type EngineModel =
  /** A Hugging Face directory: config.json, tokenizer.json if there is one, and weights if there are any. Without weights the engine serves after the first push. */
  | { readonly kind: "directory"; readonly path: string }
  /** The same directory's config and tokenizer, with the initial weights of a seed: what a trainer starts from when it starts from scratch. */
  | { readonly kind: "from-seed"; readonly path: string; readonly seed: number }
  /** All given; for tests. */
  | {
      readonly kind: "given";
      readonly config: ModelConfig;
      readonly weights: Float32Array | null;
      readonly tokenizer: EngineTokenizer | null;
    };

export interface EmbeddedEngineOptions {
  readonly model: EngineModel;
  /** Seed of requests that bring none. */
  readonly seed?: number;
  /** Loopback only. */
  readonly host?: string;
  /** 0: any free port. */
  readonly port?: number;
  /** The version of the starting weights; "0" unless given. */
  readonly weightVersion?: string;
  readonly limits?: Partial<EngineLimits>;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Logger;
}

export interface RunningEngine extends AsyncDisposable {
  readonly url: string;
  readonly engine: EmbeddedEngine;
  /** Ends every request with 503, then the server and the loop. Idempotent. */
  readonly close: () => Promise<void>;
}

/**
 * Starts an engine behind SGLang's HTTP routes in this process.
 * @throws `checkpoint.invalid`, `file.missing` for a directory that cannot be served; `config.invalid`, `port.taken`, `address.refused`.
 */
export async function startEmbeddedEngine(options: EmbeddedEngineOptions): Promise<RunningEngine> {
  const context = { clock: options.clock ?? systemClock, random: options.random ?? systemRandom, log: options.log ?? silentLogger };
  const { model } = options;
  const config = model.kind === "given" ? model.config : await readModelConfig(model.path);
  const tokenizer = model.kind === "given" ? model.tokenizer : await readTokenizer(model.path);
  const engine = new EmbeddedEngine(
    config,
    tokenizer,
    model.kind === "given" ? "given" : model.path,
    { ...defaultEngineLimits, ...options.limits },
    context,
  );
  try {
    await loadStart(engine, model, options.weightVersion ?? "0");
    const server = await serveEngine(engine, context, {
      host: options.host ?? "127.0.0.1",
      port: options.port ?? 0,
      seed: options.seed ?? 0,
    });
    let closing: Promise<void> | undefined;
    const close = () => (closing ??= engine.close().then(server.close));
    return { url: server.url, engine, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await engine.close("it could not start");
    throw error;
  }
}

async function loadStart(engine: EmbeddedEngine, model: EngineModel, version: string): Promise<void> {
  switch (model.kind) {
    case "given":
      if (model.weights !== null) await engine.updateWeights({ kind: "values", values: model.weights }, version);
      return;
    case "from-seed":
      await engine.updateWeights({ kind: "values", values: initialWeights(engine.config, model.seed) }, version);
      return;
    case "directory":
      if (await hasWeights(model.path)) await engine.updateWeights({ kind: "directory", path: model.path }, version);
      return;
  }
}

async function hasWeights(directory: string): Promise<boolean> {
  const found = await Promise.allSettled(
    ["model.safetensors", "model.safetensors.index.json"].map((name) => access(join(directory, name))),
  );
  return found.some(({ status }) => status === "fulfilled");
}
