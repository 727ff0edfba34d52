import { parse } from "yaml";
import { envOf, envPrefix, type FlagRow } from "./flag-row.js";
import { familyOf, passedText, passedWords, passedYaml } from "./pass-through.js";
import { suggestions } from "./suggest.js";
import { whyRefused } from "./upstream.js";

/** Where a value came from. `derived` is computed from others. */
export type Origin = "flag" | "env" | "file" | "default";

/** A value as its source wrote it, not yet checked. */
export interface Assignment {
  readonly raw: unknown;
  readonly origin: Exclude<Origin, "default">;
  /** For messages: `--lr`, `run.yaml: lr`, `SLIME_FLAG_LR`. */
  readonly where: string;
}

export interface Reading {
  readonly values: ReadonlyMap<string, Assignment>;
  readonly issues: readonly string[];
}

type Table = ReadonlyMap<string, FlagRow>;

const isFlag = (word: string): boolean => word.startsWith("--") && word.length > 2;

/** Reads a command line. `--config` is taken out by `splitConfig` before. */
export function readArguments(words: readonly string[], table: Table): Reading {
  const values = new Map<string, Assignment>();
  const issues: string[] = [];
  for (let at = 0; at < words.length; ) {
    const word = words[at] ?? "";
    at++;
    if (!isFlag(word)) {
      issues.push(`${JSON.stringify(word)} belongs to no flag`);
      continue;
    }
    const [written = "", inline] = splitOnce(word.slice(2), "=");
    const name = written.replaceAll("_", "-");
    const given: string[] = inline === undefined ? [] : [inline];
    if (inline === undefined) for (; at < words.length && !isFlag(words[at] ?? ""); at++) given.push(words[at] ?? "");
    const row = table.get(name);
    if (row === undefined && familyOf(name) === null) {
      issues.push(unknown(`--${written}`, name, table));
      continue;
    }
    const where = `--${name}`;
    const raw = row === undefined ? passedWords(given) : fromWords(row, given, where, issues, inline !== undefined);
    if (raw === undefined) continue;
    const earlier = values.get(name);
    if (earlier === undefined) values.set(name, { raw, origin: "flag", where });
    else if (row?.shape === "pairs")
      values.set(name, { raw: [...(earlier.raw as unknown[]), ...(raw as unknown[])], origin: "flag", where });
    else issues.push(`${where} is given twice`);
  }
  return { values, issues };
}

function fromWords(row: FlagRow, given: readonly string[], where: string, issues: string[], inline: boolean): unknown {
  const one = (): string | undefined => {
    if (given.length === 1) return given[0];
    issues.push(given.length === 0 ? `${where} needs a value` : `${where} takes one value, got ${given.length}: ${given.join(" ")}`);
    return undefined;
  };
  switch (row.shape) {
    case "switch":
      if (given.length === 0) return true;
      if (inline) return fromText(row, given[0] ?? "");
      issues.push(`${where} takes no value, got ${given.join(" ")}`);
      return undefined;
    case "texts":
      return inline ? splitList(given[0] ?? "") : [...given];
    case "integers":
      return (inline ? splitList(given[0] ?? "") : given).map(toNumber);
    case "pairs": {
      if (given.length % 2 === 1 || given.length === 0) {
        issues.push(`${where} takes pairs of NAME PATH, got ${given.length === 0 ? "nothing" : given.join(" ")}`);
        return undefined;
      }
      return Array.from({ length: given.length / 2 }, (_, i) => ({ name: given[2 * i], path: given[2 * i + 1] }));
    }
    default: {
      const text = one();
      return text === undefined ? undefined : fromText(row, text);
    }
  }
}

/** One text as a value of the row's shape; what does not parse stays text, and the schema refuses it. */
function fromText(row: FlagRow, text: string): unknown {
  switch (row.shape) {
    case "switch":
      return text === "true" || text === "1" ? true : text === "false" || text === "0" ? false : text;
    case "integer":
    case "number":
      return toNumber(text);
    case "texts":
      return splitList(text);
    case "integers":
      return splitList(text).map(toNumber);
    case "json":
      return parsedJson(text);
    case "pairs": {
      const words = splitList(text.replaceAll(" ", ","));
      return Array.from({ length: Math.ceil(words.length / 2) }, (_, i) => ({ name: words[2 * i] ?? "", path: words[2 * i + 1] ?? "" }));
    }
    default:
      return text;
  }
}

const toNumber = (text: string): unknown => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
const splitList = (text: string): string[] => (text === "" ? [] : text.split(",").map((part) => part.trim()));

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function splitOnce(text: string, separator: string): readonly [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}

/** `SLIME_FLAG_*` variables. */
export function readEnvironment(env: Readonly<Record<string, string | undefined>>, table: Table): Reading {
  const values = new Map<string, Assignment>();
  const issues: string[] = [];
  for (const [key, text] of Object.entries(env)) {
    if (!key.startsWith(envPrefix) || text === undefined) continue;
    const name = key.slice(envPrefix.length).toLowerCase().replaceAll("_", "-");
    const row = table.get(name);
    if (row === undefined && familyOf(name) !== null) values.set(name, { raw: passedText(text), origin: "env", where: key });
    else if (row === undefined) {
      const near = suggestions(name, [...table.keys()]).map(envOf);
      issues.push(`${key} is no flag's variable${near.length > 0 ? `; did you mean ${near.join(" or ")}?` : ""}`);
    } else values.set(name, { raw: fromText(row, text), origin: "env", where: key });
  }
  return { values, issues };
}

/** A `--config` file: YAML (JSON is YAML too), one flat map of flag names. `file` is for messages. */
export function readConfigText(text: string, file: string, table: Table): Reading {
  const values = new Map<string, Assignment>();
  const issues: string[] = [];
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    return { values, issues: [`${file}: ${error instanceof Error ? error.message.split("\n")[0] : "does not parse"}`] };
  }
  if (document === null) return { values, issues };
  if (typeof document !== "object" || Array.isArray(document))
    return { values, issues: [`${file}: must be a map of flag names to values`] };
  for (const [written, value] of Object.entries(document)) {
    const name = written.replaceAll("_", "-");
    const row = table.get(name);
    const where = `${file}: ${written}`;
    if (values.has(name)) issues.push(`${where} is given twice`);
    else if (row === undefined && familyOf(name) !== null) {
      const raw = passedYaml(value);
      if (raw === undefined) issues.push(`${where} is no setting of a server: give text, a number, true, false or a list`);
      else values.set(name, { raw, origin: "file", where });
    } else if (row === undefined) issues.push(unknown(where, name, table));
    else values.set(name, { raw: fromYaml(row, value), origin: "file", where: `${file}: ${written}` });
  }
  return { values, issues };
}

/** YAML has types already; a bare text stands for a list of one, a map for pairs. */
function fromYaml(row: FlagRow, value: unknown): unknown {
  if (row.shape === "texts" && typeof value === "string") return [value];
  if (row.shape === "integers" && typeof value === "number") return [value];
  if (row.shape === "pairs" && typeof value === "object" && value !== null && !Array.isArray(value)) {
    return Object.entries(value).map(([name, path]) => ({ name, path: typeof path === "string" ? path : "" }));
  }
  if (row.shape === "number" && typeof value === "string") return toNumber(value);
  if (row.shape === "text" && typeof value === "number") return String(value);
  return value;
}

function unknown(written: string, name: string, table: Table): string {
  const why = whyRefused(name);
  const near = suggestions(name, [...table.keys()]);
  if (why !== null) return `${written}: ${why}`;
  return `${written} is no flag${near.length > 0 ? `; did you mean ${near.map((flag) => `--${flag}`).join(" or ")}?` : " (slime config explain lists all)"}`;
}

/** Takes every `--config FILE` out of a command line; where two files set the same flag, the later one counts. */
export function splitConfig(words: readonly string[]): {
  readonly files: readonly string[];
  readonly rest: readonly string[];
  readonly issues: readonly string[];
} {
  const rest: string[] = [];
  const issues: string[] = [];
  const files: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    const inline = word.startsWith("--config=") ? word.slice("--config=".length) : undefined;
    if (word !== "--config" && inline === undefined) {
      rest.push(word);
      continue;
    }
    const value = inline ?? words[at + 1];
    if (inline === undefined) at++;
    if (value === undefined || value === "" || isFlag(value)) issues.push("--config needs a file");
    else if (files.includes(value)) issues.push(`--config ${value} is given twice`);
    else files.push(value);
  }
  return { files, rest, issues };
}
