/**
 * Flags that belong to a server slime starts and that are handed to it under its own names: `--sglang-*` to SGLang (its `ServerArgs`),
 * `--router-*` to sglang_router (its `RouterArgs`). A name with a row in the table is that row's. Which names a server knows, and
 * which are not the user's to give, is for whoever starts it to say; it does so before any GPU is taken.
 */

/** What a server's setting may be; true is a bare switch. */
export type PassThroughValue = string | number | boolean | readonly (string | number)[] | null;
/** By the server's own name in snake_case: `mem_fraction_static`. */
export type PassThrough = Readonly<Record<string, PassThroughValue>>;

export interface PassThroughFamily {
  readonly prefix: "sglang-" | "router-";
  readonly key: "sglangArgs" | "routerArgs";
}

const families: readonly PassThroughFamily[] = [
  { prefix: "sglang-", key: "sglangArgs" },
  { prefix: "router-", key: "routerArgs" },
];

/** The family of a flag without a row, and the server's name for it; null: none. */
export function familyOf(name: string): { readonly family: PassThroughFamily; readonly setting: string } | null {
  const family = families.find(({ prefix }) => name.startsWith(prefix) && name.length > prefix.length);
  return family === undefined ? null : { family, setting: name.slice(family.prefix.length).replaceAll("-", "_") };
}

/** Words of a command line as a setting: none is a switch, several are a list, one is a number, a truth value, JSON or text. */
export function passedWords(words: readonly string[]): PassThroughValue {
  if (words.length === 0) return true;
  const values = words.map(passedText);
  return values.length === 1 ? (values[0] ?? null) : values.map((value) => (typeof value === "number" ? value : String(value)));
}

/** One text as a setting. A JSON object stays text: servers take such flags as text. */
export function passedText(text: string): string | number | boolean {
  if (text === "true") return true;
  if (text === "false") return false;
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** A value of YAML as a setting; undefined: not one. */
export function passedYaml(value: unknown): PassThroughValue | undefined {
  if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  if (Array.isArray(value)) return value.every((item) => typeof item === "string" || typeof item === "number") ? value : undefined;
  return typeof value === "object" ? JSON.stringify(value) : undefined;
}
