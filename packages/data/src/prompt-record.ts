import type { ChatMessage, Prompt } from "@slime/backend";

/** Which fields of a JSON line mean what: upstream's `--input-key`, `--label-key`, `--metadata-key`, `--tool-key`. */
export interface RecordKeys {
  /** Null: `input`, else `prompt`. */
  readonly input: string | null;
  /** Null: `label` where there is one. A key that is given must be in every line. */
  readonly label: string | null;
  /** Null: `metadata`. */
  readonly metadata: string | null;
  /** Null: `tools`. */
  readonly tools: string | null;
}

/** The fields that are read when no flag names others. */
export const defaultRecordKeys: RecordKeys = { input: null, label: null, metadata: null, tools: null };

/** One line of a data file, understood. */
export interface PromptRecord {
  readonly prompt: Prompt;
  readonly label: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Tool descriptions for the chat template, also kept as `metadata.tools`. */
  readonly tools: readonly unknown[] | null;
}

/** Bad lines are an expected outcome: all of them are collected before anything fails. */
export type ParsedRecord = { readonly kind: "record"; readonly record: PromptRecord } | { readonly kind: "bad"; readonly issue: string };

/** Reads one JSON line. What is wrong is said together with what to do about it. */
export function parsePromptRecord(value: unknown, keys: RecordKeys): ParsedRecord {
  if (!isObject(value)) return bad('must be a JSON object like {"prompt": "…", "label": "…"}');
  const inputKey = keys.input ?? (Object.hasOwn(value, "input") ? "input" : "prompt");
  if (!Object.hasOwn(value, inputKey))
    return bad(
      `has no "${inputKey}" (it has ${
        Object.keys(value)
          .slice(0, 8)
          .map((key) => JSON.stringify(key))
          .join(", ") || "nothing"
      }): add it, or name the right field with --input-key`,
    );
  const prompt = parsePrompt(value[inputKey], inputKey);
  if (typeof prompt === "object" && "issue" in prompt) return bad(prompt.issue);
  if (keys.label !== null && !Object.hasOwn(value, keys.label)) return bad(`has no "${keys.label}", which --label-key asks for`);
  const metadata = value[keys.metadata ?? "metadata"] ?? {};
  if (!isObject(metadata)) return bad(`"${keys.metadata ?? "metadata"}" must be an object`);
  const tools = value[keys.tools ?? "tools"] ?? null;
  if (tools !== null && !Array.isArray(tools)) return bad(`"${keys.tools ?? "tools"}" must be a list`);
  return {
    kind: "record",
    record: { prompt, label: labelText(value[keys.label ?? "label"]), metadata: tools === null ? metadata : { ...metadata, tools }, tools },
  };
}

function bad(issue: string): ParsedRecord {
  return { kind: "bad", issue };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parsePrompt(value: unknown, key: string): Prompt | { readonly issue: string } {
  if (typeof value === "string") return value === "" ? { issue: `"${key}" is empty` } : value;
  if (!Array.isArray(value)) return { issue: `"${key}" must be text or a list of chat messages` };
  if (value.length === 0) return { issue: `"${key}" is an empty list of messages` };
  const messages: ChatMessage[] = [];
  for (const [i, message] of value.entries()) {
    if (!isObject(message) || typeof message["role"] !== "string" || typeof message["content"] !== "string")
      return { issue: `message ${i + 1} of "${key}" must be {"role": "…", "content": "…"} with text in both` };
    messages.push(message as unknown as ChatMessage);
  }
  return messages;
}

/** Labels are text: numbers and truth values as JSON writes them, lists and objects as JSON. */
function labelText(value: unknown): string | null {
  if (value === undefined || value === null) return null;
  return typeof value === "string" ? value : JSON.stringify(value);
}
