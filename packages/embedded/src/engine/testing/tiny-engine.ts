import { type Logger, seededRandom, silentLogger, systemClock, systemRandom } from "@slime/core";
import type { ModelConfig } from "../../model-config.js";
import { roughWeights, tinyConfig, tinyLlamaConfig } from "../../testing/tiny-model.js";
import { EmbeddedEngine } from "../engine.js";
import { parseGenerate, type RequestRules } from "../generate-request.js";
import { generate } from "../generate-route.js";
import { defaultEngineLimits, type EngineLimits } from "../options.js";
import { childSeed } from "../sampling.js";
import type { Sequence } from "../sequence.js";
import type { EngineTokenizer } from "../tokenizer.js";

/** A model small enough for a property test, with grouped queries, qk-norm and a vocabulary that is no multiple of 8. */
export const servedConfig: ModelConfig = tinyConfig({
  vocabSize: 26,
  hiddenSize: 16,
  intermediateSize: 24,
  heads: 4,
  kvHeads: 2,
  positionsMax: 64,
});

/** The same size as a Llama: tied head, scaled rotary positions, no qk-norm. */
export const servedLlamaConfig: ModelConfig = tinyLlamaConfig({
  vocabSize: 26,
  hiddenSize: 16,
  intermediateSize: 24,
  heads: 4,
  kvHeads: 2,
  positionsMax: 64,
});

export const servedWeights = (seed: number, config = servedConfig): Float32Array => roughWeights(config, seed);

/** One letter per token, `A` for 0 on: text is easy to predict. */
export const letterTokenizer: EngineTokenizer = {
  encode: (text) => Array.from(text, (letter) => letter.charCodeAt(0) - 65),
  decode: (ids) => ids.map((id) => String.fromCharCode(65 + id)).join(""),
};

/** An engine without HTTP over `servedConfig` unless another is given, to be closed by its user. */
export async function tinyEngine(
  limits: Partial<EngineLimits> = {},
  options: { readonly version?: string | null; readonly log?: Logger; readonly config?: ModelConfig } = {},
): Promise<EmbeddedEngine> {
  const context = { clock: systemClock, random: seededRandom(1), log: options.log ?? silentLogger };
  const config = options.config ?? servedConfig;
  const engine = new EmbeddedEngine(
    config,
    letterTokenizer,
    "tiny",
    { ...defaultEngineLimits, kvTokensMax: 1_024, runningMax: 16, stepRowsMax: 32, ...limits },
    context,
  );
  if (options.version !== null) await engine.updateWeights({ kind: "values", values: servedWeights(5, config) }, options.version ?? "1");
  return engine;
}

export function rulesOf(engine: EmbeddedEngine): RequestRules {
  let requests = 0;
  return {
    config: engine.config,
    tokenizer: engine.tokenizer,
    limits: engine.limits,
    random: systemRandom,
    nextSeed: () => childSeed(3, ++requests),
  };
}

/** Generates for one body of /generate, until all its sequences have ended. */
export function ask(engine: EmbeddedEngine, body: unknown): Promise<readonly Sequence[]> {
  return generate(engine, parseGenerate(body, rulesOf(engine)), null);
}

/** Starts a body of one sequence; `reached` resolves once it has `tokens` output tokens (or has ended), `ended` when it has. */
export function start(
  engine: EmbeddedEngine,
  body: unknown,
  tokens: number,
): { readonly sequence: Sequence; readonly reached: Promise<void>; readonly ended: Promise<Sequence> } {
  const reached = resolvers<void>();
  const ended = resolvers<Sequence>();
  const [sequence] = engine.submit(parseGenerate(body, rulesOf(engine)).jobs, {
    progressed: ({ outputIds }) => void (outputIds.length >= tokens && reached.resolve()),
    ended: (sequence) => {
      reached.resolve();
      ended.resolve(sequence);
    },
  });
  if (sequence === undefined) throw new RangeError("the body holds no sequence");
  return { sequence, reached: reached.promise, ended: ended.promise };
}

function resolvers<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((done) => (resolve = done));
  return { promise, resolve };
}

/** What a client would compare of a reply. */
export function outcome(sequence: Sequence): {
  readonly ids: readonly number[];
  readonly logProbs: readonly number[];
  readonly inputs: readonly (number | null)[];
  readonly reason: unknown;
} {
  return {
    ids: sequence.outputIds,
    logProbs: sequence.outputLogProbs,
    inputs: sequence.inputLogProbs,
    reason: sequence.state.kind === "finished" ? sequence.state.reason : sequence.state,
  };
}
