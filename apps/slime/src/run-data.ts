import { type DataSource, loadPromptCodec, loadPromptSet, type OpenedSource, openJsonlSource, type PromptCodec } from "@slime/data";
import type { RunConfig } from "@slime/rl-config";
import { type DataSettings, dataSettings, evalDataSettings, evalSampling, type RunPorts } from "@slime/training";

/** Tokens of the canary's text at most: enough to notice weights that went wrong, little enough to cost nothing. */
const canaryTokensMax = 32;

/** A run's prompts, read and checked before anything is started. Disposing closes the file. */
export interface RunData extends AsyncDisposable {
  readonly source: DataSource;
  readonly evalSets: RunPorts["evalSets"];
  /** Ids of the first prompt: the text on which trainer and engines must agree after a push. Null: it is too short. */
  readonly canaryTokens: readonly number[] | null;
  /** Prompts that were left out for their length. */
  readonly tooLong: number;
}

/** @throws `data.invalid` naming file and line, `file.missing`, `config.invalid`. */
export async function openRunData(config: RunConfig, signal?: AbortSignal): Promise<RunData> {
  const settings = dataSettings(config);
  const codec = await codecOf(settings);
  const { source, tooLong } = await openSource(settings, codec, signal);
  try {
    const evalSets = await Promise.all(
      config.evalPromptData.map(async (set) => ({
        name: set.name,
        prompts: await loadPromptSet(set.name, {
          ...jsonlOptions(evalDataSettings(config, set), codec, `--eval-prompt-data ${set.name}`),
          signal,
        }),
        samplesPerPrompt: config.nSamplesPerEvalPrompt,
        sampling: evalSampling(config),
      })),
    );
    return { source, evalSets, canaryTokens: await canary(source, codec), tooLong, [Symbol.asyncDispose]: () => source.close() };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The training prompts alone, as an audit and a plan need them; the tokenizer is read only where prompts depend on it. */
export async function openTrainingSource(config: RunConfig): Promise<DataSource> {
  const settings = dataSettings(config);
  const codec = settings.applyChatTemplate || settings.promptTokensMax !== null ? await codecOf(settings) : null;
  return (await openSource(settings, codec)).source;
}

function codecOf({ tokenizerDirectory, chatTemplateKwargs }: DataSettings): Promise<PromptCodec> {
  return loadPromptCodec(tokenizerDirectory, { chatTemplateKwargs });
}

function openSource(settings: DataSettings, codec: PromptCodec | null, signal?: AbortSignal): Promise<OpenedSource> {
  return openJsonlSource({ ...jsonlOptions(settings, codec, "--prompt-data"), shuffle: settings.shuffle, seed: settings.seed, signal });
}

function jsonlOptions(
  { path, inputKey, labelKey, metadataKey, applyChatTemplate, promptTokensMax }: DataSettings,
  codec: PromptCodec | null,
  wanted: string,
) {
  return {
    path,
    wanted,
    keys: { input: inputKey, label: labelKey, metadata: metadataKey, tools: null },
    applyChatTemplate,
    codec,
    promptTokensMax,
  };
}

/** Taken from the source and put back: every attempt of a run sees the same text. */
async function canary(source: DataSource, codec: PromptCodec): Promise<readonly number[] | null> {
  const origin = source.state();
  const [first] = await source.take(1);
  await source.restore(origin);
  const tokens = first === undefined ? [] : codec.encode(first.prompt).slice(0, canaryTokensMax);
  return tokens.length < 2 ? null : tokens;
}
