import { hostname } from "node:os";
import { resolve } from "node:path";
import { type Clock, type Logger, type Random, SlimeError } from "@slime/core";
import { type DataSource, loadPromptCodec, loadPromptSet, openJsonlSource, type PromptCodec } from "@slime/data";
import { detectPlatform } from "@slime/platform";
import type { RunConfig } from "@slime/rl-config";
import { init, reportPhase, type Session } from "@slime/runtime";
import { type DataSettings, dataSettings, evalDataSettings, evalSampling, type OpenedRun, openRun, type ProgressSink, type PromptGroup, type RunPorts, runLoop, type RunSummary } from "@slime/training";
import { type BoundActors, bindActors } from "./bind-actors.js";

/** The canary of a push: the first tokens of the first prompt, long enough to notice weights that went wrong. */
const canaryTokensMax = 32;

export interface DriveOptions {
  readonly config: RunConfig;
  /** Absolute run directory. */
  readonly root: string;
  readonly runId: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly progress: ProgressSink;
  readonly signal: AbortSignal;
}

/**
 * Drives one run from here to its end: reads the data, takes the run directory, joins the cluster, makes the actors, runs the loop.
 * Everything it opened is closed again, also when it fails; what is durable stays and the same command resumes.
 */
export async function driveRun(options: DriveOptions): Promise<RunSummary> {
  const { config, log, clock, random, progress, signal } = options;
  const platform = detectPlatform(process.env);
  const codec = await loadPromptCodec(config.hfCheckpoint, { chatTemplateKwargs: config.applyChatTemplateKwargs });
  // Bad data is found before any GPU is taken.
  const source = await openSource(dataSettings(config), codec, "--prompt-data", signal);
  await using _source = { [Symbol.asyncDispose]: () => source.close() };
  const evalSets = await readEvalSets(config, codec, signal);
  await using run = await openRun({
    config,
    root: options.root,
    runId: options.runId,
    prompts: source.size,
    owner: { pid: process.pid, host: hostname(), isAlive: (pid) => platform.processes.identify(pid) !== null },
    clock,
    log,
  });
  await using session = await init({ log });
  const say = (line: string) => {
    progress.update(line);
    reportPhase(line);
  };
  await using actors = await bindActors(config, { session, clock, random, log, say });
  const ports = portsOf({ run, actors, source, evalSets, canary: await canaryOf(evalSets, source, codec), session, options });
  return await runLoop(ports, run.settings, { random, signal, load: run.load, verify: run.verify });
}

interface PortParts {
  readonly run: OpenedRun;
  readonly actors: BoundActors;
  readonly source: DataSource;
  readonly evalSets: RunPorts["evalSets"];
  readonly canary: readonly number[] | null;
  readonly session: Session;
  readonly options: DriveOptions;
}

function portsOf({ run, actors, source, evalSets, canary, options }: PortParts): RunPorts {
  const { clock, log, progress } = options;
  return {
    source,
    ledger: run.ledger,
    evalSets,
    rollouts: actors.rollouts,
    trainer: actors.trainer,
    fleet: actors.fleet,
    canaryTokens: canary,
    storage: run.storage,
    metrics: run.metrics,
    spans: run.spans,
    progress: {
      update(line) {
        progress.update(line);
        reportPhase(line);
      },
      done: (line) => progress.done(line),
    },
    clock,
    log,
  };
}

async function openSource(settings: DataSettings, codec: PromptCodec, wanted: string, signal: AbortSignal): Promise<DataSource> {
  const { source } = await openJsonlSource({ ...jsonlOptions(settings, codec), wanted, shuffle: settings.shuffle, seed: settings.seed, signal });
  return source;
}

const jsonlOptions = (settings: DataSettings, codec: PromptCodec) => ({
  path: settings.path,
  keys: { input: settings.inputKey, label: settings.labelKey, metadata: settings.metadataKey, tools: null },
  applyChatTemplate: settings.applyChatTemplate,
  codec,
  promptTokensMax: settings.promptTokensMax,
});

async function readEvalSets(config: RunConfig, codec: PromptCodec, signal: AbortSignal): Promise<RunPorts["evalSets"]> {
  return Promise.all(
    config.evalPromptData.map(async (set) => ({
      name: set.name,
      prompts: await loadPromptSet(set.name, { ...jsonlOptions(evalDataSettings(config, set), codec), wanted: "--eval-prompt-data", signal }),
      samplesPerPrompt: config.nSamplesPerEvalPrompt,
      sampling: evalSampling(config),
    })),
  );
}

/** Ids of a prompt that every attempt of the run sees alike; null when none has two tokens. */
async function canaryOf(evalSets: RunPorts["evalSets"], source: DataSource, codec: PromptCodec): Promise<readonly number[] | null> {
  const first: PromptGroup | undefined = evalSets[0]?.prompts[0] ?? (await source.lookup(["0:0"]).catch(() => []))[0];
  if (first === undefined) return null;
  const ids = codec.encode(first.prompt).slice(0, canaryTokensMax);
  return ids.length < 2 ? null : ids;
}

/** Where a run's directory lies. @throws `config.invalid` for one that is a file system's root. */
export function runRoot(config: Pick<RunConfig, "runDir">, runId: string, cwd: string): string {
  const root = resolve(cwd, config.runDir ?? `outputs/${runId}`);
  if (root !== resolve("/")) return root;
  const issue = "--run-dir: a run cannot be the root directory";
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}
