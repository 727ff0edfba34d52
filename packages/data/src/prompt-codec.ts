import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";
import { type Prompt, withUnicodeDigits } from "@slime/backend";
import { SlimeError } from "@slime/core";

/** From prompts to text to token ids, by the files of one model directory. */
export interface PromptCodec {
  /** Whether messages can be rendered at all. */
  readonly hasTemplate: boolean;
  /** Chat messages, or text as one user message, through the model's chat template with the generation prompt added. */
  readonly render: (prompt: Prompt, tools: readonly unknown[] | null) => string;
  /** Ids of a prompt without special tokens of the tokenizer's own; messages go through `render` first, text is taken as it is. */
  readonly encode: (prompt: Prompt) => readonly number[];
  /** Ids of a text to be continued, with the special tokens that the tokenizer adds of itself (a beginning-of-text, say). */
  readonly encodeText: (text: string) => readonly number[];
  readonly decode: (ids: readonly number[], options: { readonly skipSpecialTokens: boolean }) => string;
}

/** What a template gets beside the messages. */
export interface PromptCodecOptions {
  /** More variables for the template: `--apply-chat-template-kwargs`. */
  readonly chatTemplateKwargs?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * Reads `tokenizer.json` and `tokenizer_config.json`, and `chat_template.jinja` where there is one.
 * A model without a template still encodes text; messages then fail, and say so.
 * @throws SlimeError `file.missing`, `config.invalid` (a file that is not what it should be).
 */
export async function loadPromptCodec(modelDirectory: string, options: PromptCodecOptions = {}): Promise<PromptCodec> {
  const tokenizerConfig = await readJson(join(modelDirectory, "tokenizer_config.json"));
  const tokenizer = new Tokenizer(withUnicodeDigits(await readJson(join(modelDirectory, "tokenizer.json"))), tokenizerConfig);
  const source = (await readOptional(join(modelDirectory, "chat_template.jinja"))) ?? tokenizerConfig["chat_template"];
  const template = chatTemplate(source, modelDirectory);
  const variables = { ...specialTokens(tokenizerConfig), ...options.chatTemplateKwargs };
  const render = (prompt: Prompt, tools: readonly unknown[] | null): string => {
    const messages = typeof prompt === "string" ? [{ role: "user", content: prompt }] : prompt;
    return template(tools !== null).render({ messages, tools, add_generation_prompt: true, ...variables });
  };
  return {
    hasTemplate: templateText(source, false) !== null,
    render,
    encode: (prompt) => tokenizer.encode(typeof prompt === "string" ? prompt : render(prompt, null), { add_special_tokens: false }).ids,
    encodeText: (text) => tokenizer.encode(text).ids,
    decode: (ids, { skipSpecialTokens }) =>
      ids.length === 0 ? "" : tokenizer.decode([...ids], { skip_special_tokens: skipSpecialTokens, clean_up_tokenization_spaces: false }),
  };
}

/** Compiles on first use: a template is text, or several by name of which "tool_use" is for prompts with tools. */
function chatTemplate(source: unknown, modelDirectory: string): (withTools: boolean) => Template {
  const compiled = new Map<string, Template>();
  return (withTools) => {
    const text = templateText(source, withTools);
    if (text === null) {
      const issue = `the model in ${modelDirectory} has no chat template (neither chat_template.jinja nor chat_template in tokenizer_config.json): add one, or give prompts as text without --apply-chat-template`;
      throw new SlimeError("config.invalid", issue, { issues: [issue] });
    }
    const known = compiled.get(text) ?? new Template(text);
    compiled.set(text, known);
    return known;
  };
}

function templateText(source: unknown, withTools: boolean): string | null {
  if (typeof source === "string") return source;
  if (!Array.isArray(source)) return null;
  const named = new Map(
    source.flatMap((entry: { name?: unknown; template?: unknown }) =>
      typeof entry.name === "string" && typeof entry.template === "string" ? [[entry.name, entry.template]] : [],
    ),
  );
  return (withTools ? named.get("tool_use") : undefined) ?? named.get("default") ?? null;
}

/** `bos_token` and its kin, which templates use by name. */
function specialTokens(config: Readonly<Record<string, unknown>>): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    if (!key.endsWith("_token")) continue;
    if (typeof value === "string") tokens[key] = value;
    else if (typeof value === "object" && value !== null && "content" in value && typeof value.content === "string")
      tokens[key] = value.content;
  }
  return tokens;
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  const text = await readOptional(path);
  if (text === null)
    throw new SlimeError(
      "file.missing",
      `${path} is missing: --hf-checkpoint must name a Hugging Face model directory with its tokenizer`,
      { path, wanted: "--hf-checkpoint" },
    );
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    const issue = `${path} is not JSON: fetch the model directory anew`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] }, { cause: error });
  }
}

async function readOptional(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
}
