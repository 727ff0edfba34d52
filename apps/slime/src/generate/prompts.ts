import { readFile } from "node:fs/promises";
import type { ChatMessage, Prompt } from "@slime/backend";
import { reasonOf, SlimeError } from "@slime/core";
import { defaultRecordKeys, openJsonl, type PromptCodec, parsePromptRecord } from "@slime/data";
import { modelBounds } from "../actors/model-bounds.js";
import type { GenerateFlags, GenerateSettings } from "./settings.js";

/** Most prompts of one call. */
export const promptsMax = 10_000;
/** Longest text read from standard input, in bytes. */
const stdinBytesMax = 16 << 20;

/** Standard input, as far as this needs it. */
export type PromptInput = AsyncIterable<Uint8Array | string> & { readonly isTTY?: boolean };

/** One question, as it was given. */
export interface AskedPrompt {
  readonly prompt: Prompt;
  /** For the chat template. */
  readonly tools: readonly unknown[] | null;
}

/**
 * The prompts in the order given: `--prompt`, then `--prompt-file`; standard input where neither is given.
 * @throws SlimeError `config.invalid`, `file.missing`, `data.invalid`, naming the fix.
 */
export async function readPrompts(
  flags: Pick<GenerateFlags, "prompt" | "promptFile" | "inputKey">,
  stdin: PromptInput,
): Promise<readonly AskedPrompt[]> {
  const asText = (text: string): AskedPrompt => ({ prompt: text, tools: null });
  const prompts = (flags.prompt ?? []).map(asText);
  if (flags.inputKey !== undefined && flags.promptFile?.endsWith(".jsonl") !== true)
    throw invalid("--input-key names a field of a --prompt-file that ends in .jsonl");
  if (flags.promptFile !== undefined && flags.promptFile !== "-") prompts.push(...(await filePrompts(flags.promptFile, flags.inputKey)));
  else if (flags.promptFile === "-" || prompts.length === 0) {
    if (flags.promptFile === undefined && stdin.isTTY === true)
      throw invalid('what shall it answer? --prompt "…" (more than once if you like), --prompt-file FILE, or text on standard input');
    prompts.push(asText(withoutLastNewline(await readAll(stdin))));
  }
  if (prompts.length > promptsMax) throw invalid(`${prompts.length} prompts: at most ${promptsMax} at once`);
  const empty = prompts.findIndex(({ prompt }) => prompt.length === 0);
  if (empty >= 0) throw invalid(`prompt ${empty + 1} is empty`);
  return prompts;
}

/** A prompt as the engine gets it. */
export interface EncodedPrompt {
  /** With the system message. */
  readonly prompt: Prompt;
  /** Null: the engine's own tokenizer reads the text, since no model directory is known here. */
  readonly inputIds: readonly number[] | null;
  readonly text: string;
  /** Tokens that an answer may have. */
  readonly maxNewTokens: number;
}

/**
 * Through the chat template, unless there is none or `--no-chat` says otherwise, to token ids.
 * @param model the tokenizer and the directory it came from; null: prompts go to the engine as text.
 * @param contextLength of the engine; null: not known. @throws SlimeError `config.invalid`, `data.invalid`.
 */
export async function encodePrompts(
  prompts: readonly AskedPrompt[],
  settings: Pick<GenerateSettings, "chat" | "system" | "maxNewTokens">,
  model: { readonly codec: PromptCodec; readonly directory: string } | null,
  contextLength: number | null,
): Promise<readonly EncodedPrompt[]> {
  const chat =
    settings.chat ??
    (settings.system !== null || (model?.codec.hasTemplate ?? false) || prompts.some(({ prompt }) => typeof prompt !== "string"));
  if (model === null) {
    if (chat) throw invalid("a chat needs the model's template: add --hf-checkpoint DIR, or --no-chat to send prompts as they are");
    return prompts.map(({ prompt }) => ({ prompt, inputIds: null, text: String(prompt), maxNewTokens: settings.maxNewTokens.count }));
  }
  if (chat && !model.codec.hasTemplate)
    throw invalid(
      `the model in ${model.directory} has no chat template: leave --chat, --system and lists of messages out, and prompts are continued as they are`,
    );
  const { vocabularySize, positions } = await modelBounds(model.directory);
  return prompts.map(({ prompt, tools }, at) => {
    const messages = chat ? withSystem(prompt, settings.system) : prompt;
    if (typeof messages !== "string" && !chat) throw invalid(`prompt ${at + 1} is a list of chat messages: leave --no-chat out`);
    const text = typeof messages === "string" ? messages : rendered(model.codec, messages, tools, at);
    const inputIds = typeof messages === "string" ? model.codec.encodeText(text) : model.codec.encode(text);
    if (inputIds.length === 0) throw invalid(`prompt ${at + 1} gives no token`);
    // A token id beyond the vocabulary ends an SGLang server.
    const foreign = inputIds.find((id) => id >= vocabularySize);
    if (foreign !== undefined)
      throw invalid(
        `prompt ${at + 1} has token id ${foreign} and the model's vocabulary ${vocabularySize} entries: tokenizer.json and config.json are of different models`,
      );
    return {
      prompt: messages,
      inputIds,
      text,
      maxNewTokens: room(settings, inputIds.length, Math.min(positions, contextLength ?? positions), at),
    };
  });
}

function rendered(codec: PromptCodec, messages: Prompt, tools: readonly unknown[] | null, at: number): string {
  try {
    return codec.render(messages, tools);
  } catch (cause) {
    const issue = `prompt ${at + 1}: the model's chat template refuses it (${reasonOf(cause)}): change it, or continue it as it is with --no-chat`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] }, { cause });
  }
}

/** Tokens an answer may have. Servers count the prompt in, and keep a place free. */
function room({ maxNewTokens }: Pick<GenerateSettings, "maxNewTokens">, promptTokens: number, contextLength: number, at: number): number {
  const left = contextLength - promptTokens - 1;
  if (left < 1) throw invalid(`prompt ${at + 1} has ${promptTokens} tokens, the model holds ${contextLength}, answer included: shorten it`);
  if (maxNewTokens.exact && maxNewTokens.count > left)
    throw invalid(
      `prompt ${at + 1} has ${promptTokens} tokens and leaves ${left} of ${contextLength} for the answer: lower --max-new-tokens`,
    );
  return Math.min(maxNewTokens.count, left);
}

function withSystem(prompt: Prompt, system: string | null): readonly ChatMessage[] {
  const messages: readonly ChatMessage[] = typeof prompt === "string" ? [{ role: "user", content: prompt }] : prompt;
  return system === null ? messages : [{ role: "system", content: system }, ...messages];
}

async function filePrompts(path: string, inputKey: string | undefined): Promise<readonly AskedPrompt[]> {
  if (!path.endsWith(".jsonl")) {
    try {
      return [{ prompt: withoutLastNewline(await readFile(path, "utf8")), tools: null }];
    } catch (cause) {
      throw new SlimeError("file.missing", `--prompt-file ${path} cannot be read`, { path, wanted: "--prompt-file" }, { cause });
    }
  }
  const prompts: AskedPrompt[] = [];
  const file = await openJsonl(path, {
    wanted: "--prompt-file",
    check: (value) => {
      const parsed = parsePromptRecord(value, { ...defaultRecordKeys, input: inputKey ?? null });
      if (parsed.kind === "bad") return parsed.issue;
      prompts.push({ prompt: parsed.record.prompt, tools: parsed.record.tools });
      return prompts.length > promptsMax ? `is one more than the ${promptsMax} prompts of one call` : null;
    },
  });
  await file.close();
  if (prompts.length === 0) throw new SlimeError("data.invalid", `${path} has no prompts`, { file: path, issues: ["no rows"] });
  return prompts;
}

async function readAll(input: AsyncIterable<Uint8Array | string>): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of input) {
    parts.push(Buffer.from(part));
    bytes += parts.at(-1)?.length ?? 0;
    if (bytes > stdinBytesMax) throw invalid(`standard input has more than ${stdinBytesMax} bytes: give --prompt-file a .jsonl of prompts`);
  }
  return Buffer.concat(parts).toString("utf8");
}

function withoutLastNewline(text: string): string {
  return text.replace(/\r?\n$/, "");
}

function invalid(issue: string): SlimeError {
  return new SlimeError("config.invalid", issue, { issues: [issue] });
}
