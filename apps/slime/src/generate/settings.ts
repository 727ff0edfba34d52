import { SlimeError } from "@slime/core";
import { type PassThroughValue, passedWords, suggestions } from "@slime/rl-config";

/** What commander reads; texts are as typed. */
export interface GenerateFlags {
  readonly hfCheckpoint?: string;
  readonly prompt?: readonly string[];
  readonly promptFile?: string;
  readonly inputKey?: string;
  readonly system?: string;
  /** Undefined: as the model has a template or not. */
  readonly chat?: boolean;
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly maxNewTokens?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly n: number;
  readonly json?: true;
  readonly url?: string;
  readonly rolloutBackend?: "embedded" | "sglang";
  readonly sglangPython?: string;
  readonly numGpus?: number;
  readonly timeoutSecs: number;
}

/** The command's flags, for suggestions. */
export const flagNames = [
  "hf-checkpoint",
  "prompt",
  "prompt-file",
  "input-key",
  "system",
  "chat",
  "no-chat",
  "temperature",
  "top-p",
  "top-k",
  "max-new-tokens",
  "seed",
  "stop",
  "n",
  "json",
  "url",
  "rollout-backend",
  "sglang-python",
  "num-gpus",
  "timeout-secs",
];

/** Who answers. */
export type AnsweredBy =
  | { readonly kind: "embedded"; readonly hfCheckpoint: string }
  | {
      readonly kind: "sglang";
      readonly hfCheckpoint: string;
      readonly python: string;
      readonly args: Readonly<Record<string, PassThroughValue>>;
      /** Null: one where the machine has GPUs, else none. */
      readonly gpus: number | null;
    }
  | { readonly kind: "url"; readonly url: string; readonly hfCheckpoint: string | null };

/** How answers are drawn, under SGLang's names. */
export interface SamplingFlags {
  readonly temperature: number;
  readonly top_p: number;
  readonly top_k: number;
  readonly stop?: readonly string[];
}

/** Longest answer unless a flag says otherwise. */
const answerTokensDefault = 256;

/** The flags, checked and with defaults. */
export interface GenerateSettings {
  readonly by: AnsweredBy;
  readonly chat: boolean | null;
  readonly system: string | null;
  readonly sampling: SamplingFlags;
  /** `exact`: the flag was given, so an answer may not be cut to what the context has left. */
  readonly maxNewTokens: { readonly count: number; readonly exact: boolean };
  readonly seed: number | null;
  readonly answersPerPrompt: number;
  readonly json: boolean;
  readonly timeoutMs: number;
}

/** Most answers to one prompt. */
export const answersPerPromptMax = 256;

/**
 * Makes sense of the flags together. @param words what commander does not know: `--sglang-*` and their values.
 * @throws SlimeError `config.invalid`, all issues at once, each with its fix.
 */
export function readSettings(flags: GenerateFlags, words: readonly string[]): GenerateSettings {
  const issues: string[] = [];
  const args = sglangArgs(words, issues);
  const by = answeredBy(flags, args, issues);
  if (flags.temperature === 0 && flags.n > 1)
    issues.push(`--n ${flags.n} at --temperature 0 is the same answer ${flags.n} times: add --temperature 0.8, or leave --n out`);
  if (flags.temperature === 0 && flags.seed !== undefined) issues.push("--seed changes nothing at --temperature 0: add --temperature 0.8");
  if (flags.n > answersPerPromptMax) issues.push(`--n ${flags.n}: at most ${answersPerPromptMax} answers to a prompt`);
  if (flags.system !== undefined && flags.chat === false) issues.push("--system is part of a chat: leave --no-chat out");
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  return {
    by,
    chat: flags.chat ?? null,
    system: flags.system ?? null,
    sampling: {
      temperature: flags.temperature,
      top_p: flags.topP,
      top_k: flags.topK,
      ...(flags.stop === undefined ? {} : { stop: flags.stop }),
    },
    maxNewTokens: { count: flags.maxNewTokens ?? answerTokensDefault, exact: flags.maxNewTokens !== undefined },
    seed: flags.seed ?? null,
    answersPerPrompt: flags.n,
    json: flags.json === true,
    timeoutMs: flags.timeoutSecs * 1_000,
  };
}

function answeredBy(flags: GenerateFlags, args: Readonly<Record<string, PassThroughValue>>, issues: string[]): AnsweredBy {
  const { url, hfCheckpoint, rolloutBackend: backend = "embedded" } = flags;
  const sglangOnly = [
    ...(flags.sglangPython === undefined ? [] : ["--sglang-python"]),
    ...(flags.numGpus === undefined ? [] : ["--num-gpus"]),
    ...Object.keys(args).map((name) => `--sglang-${name.replaceAll("_", "-")}`),
  ];
  if (url !== undefined) {
    if (flags.rolloutBackend !== undefined) issues.push("--url asks an engine that runs already: leave --rollout-backend out");
    if (sglangOnly.length > 0) issues.push(`--url asks an engine that runs already: leave ${sglangOnly.join(", ")} out`);
    return { kind: "url", url: checkedUrl(url, issues), hfCheckpoint: hfCheckpoint ?? null };
  }
  if (hfCheckpoint === undefined)
    issues.push("--hf-checkpoint is missing: name the model's directory (Hugging Face files), or ask a running engine with --url");
  if (backend === "embedded") {
    if (sglangOnly.length > 0) issues.push(`${sglangOnly.join(", ")}: for SGLang; add --rollout-backend sglang`);
    return { kind: "embedded", hfCheckpoint: hfCheckpoint ?? "" };
  }
  return { kind: "sglang", hfCheckpoint: hfCheckpoint ?? "", python: flags.sglangPython ?? "python3", args, gpus: flags.numGpus ?? null };
}

function checkedUrl(text: string, issues: string[]): string {
  try {
    const url = new URL(text.includes("://") ? text : `http://${text}`);
    if (url.protocol === "http:") return url.origin;
  } catch {
    // Said below.
  }
  issues.push(`--url ${JSON.stringify(text)} is no address: write http://127.0.0.1:30000`);
  return text;
}

/** `--sglang-mem-fraction-static 0.5` and `--sglang-device=cpu` as settings by SGLang's names. */
function sglangArgs(words: readonly string[], issues: string[]): Readonly<Record<string, PassThroughValue>> {
  const args: Record<string, PassThroughValue> = {};
  for (let at = 0; at < words.length; ) {
    const word = words[at] ?? "";
    const end = words.findIndex((other, i) => i > at && /^--[a-z]/.test(other));
    const values = words.slice(at + 1, end < 0 ? words.length : end);
    at = end < 0 ? words.length : end;
    const [flag = "", inline] = splitOnce(word, "=");
    if (flag.startsWith("--sglang-") && flag.length > "--sglang-".length)
      args[flag.slice("--sglang-".length).replaceAll("-", "_")] = passedWords([...(inline === undefined ? [] : [inline]), ...values]);
    else if (word.startsWith("-")) issues.push(`${flag}: there is no such flag${meant(flag)}; slime generate --help lists them`);
    else issues.push(`${JSON.stringify(word)} belongs to no flag: a prompt is given as --prompt ${JSON.stringify(word)}`);
  }
  return args;
}

/** Flags that a misspelt one may have meant. */
function meant(flag: string): string {
  const near = suggestions(flag.replace(/^-+/, ""), flagNames);
  return near.length === 0 ? "" : ` (did you mean ${near.map((name) => `--${name}`).join(" or ")}?)`;
}

function splitOnce(text: string, mark: string): readonly [string, string?] {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + mark.length)];
}
