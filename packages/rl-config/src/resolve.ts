import { SlimeError } from "@slime/core";
import { type EngineModel, parseEngineModels } from "./engine-groups.js";
import { envOf, type FlagRow, keyOf } from "./flag-row.js";
import { type FlagValues, flags, type RunConfig, type RunMode } from "./flags.js";
import { familyOf, type PassThrough, type PassThroughValue } from "./pass-through.js";
import { missingPaths, type PathProbe, problems } from "./problems.js";
import { type Assignment, type Origin, readArguments, readConfigText, readEnvironment, splitConfig } from "./sources.js";
import { suggestions } from "./suggest.js";

const table: ReadonlyMap<string, FlagRow> = new Map(flags.map((row): [string, FlagRow] => [row.name, row as FlagRow]));

export interface ConfigInput {
  readonly mode: RunMode;
  /** The words after `slime train`. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Reads the `--config` file. @throws whatever says why it cannot. */
  readonly readFile: (path: string) => string;
  readonly paths: PathProbe;
}

/** One value and who set it, for `slime config explain`. */
export interface Explained {
  readonly row: FlagRow;
  readonly value: unknown;
  readonly origin: Origin;
  /** `--lr`, `run.yaml: lr`, `SLIME_FLAG_LR`, or `default`. */
  readonly where: string;
}

export interface Resolved {
  readonly config: RunConfig;
  readonly explained: readonly Explained[];
}

/**
 * flag > environment > files (a later one above an earlier) > default, checked and frozen.
 * @throws `config.invalid` with every issue at once: unknown names with suggestions, wrong values, missing ones, contradictions;
 * `file.missing` when `--config` cannot be read, or when files that are not there are all that is wrong.
 */
export function resolveConfig(input: ConfigInput): Resolved {
  const { files, rest, issues: configIssues } = splitConfig(input.argv);
  const issues: string[] = [...configIssues];
  const layers: ReadonlyMap<string, Assignment>[] = [];
  for (const file of files) {
    const reading = readConfigText(readConfig(file, input.readFile), file, table);
    issues.push(...reading.issues);
    layers.push(reading.values);
  }
  for (const reading of [readEnvironment(input.env, table), readArguments(rest, table)]) {
    issues.push(...reading.issues);
    layers.push(reading.values);
  }
  const assigned = new Map(layers.flatMap((layer) => [...layer]));

  const values: Record<string, unknown> = { mode: input.mode, ...passedThrough(assigned) };
  const explained: Explained[] = [];
  const broken = new Set<string>();
  for (const row of table.values()) {
    const assignment = assigned.get(row.name);
    if (assignment === undefined && row.required) {
      issues.push(`--${row.name} must be given: ${row.help}`);
      broken.add(row.name);
    }
    const checked = assignment === undefined ? { value: row.default } : check(row, assignment, issues);
    if (checked === null) broken.add(row.name);
    const value = checked === null ? row.default : checked.value;
    values[keyOf(row.name)] = value;
    explained.push({ row, value, origin: assignment?.origin ?? "default", where: assignment?.where ?? "default" });
  }
  const models = readEngineModels(values as FlagValues, input, issues);
  if (models === "broken") broken.add("sglang-config");
  const config = deepFreeze({ ...values, sglangModels: models === "broken" ? null : models }) as RunConfig;
  const wrong = new Set([...broken, ...issues.flatMap(flagsIn)]);
  issues.push(...soundProblems(config, wrong, (tried) => problems(tried, new Set(assigned.keys()), input.paths)));
  const absent = wrong.size > 0 ? [] : missingPaths(config, input.paths);
  if (absent.length > 0 && absent.length === issues.length) {
    throw new SlimeError("file.missing", issues.join("; "), { path: absent[0]?.path ?? "", wanted: absent[0]?.flag ?? "" });
  }
  if (issues.length > 0) throw invalid(issues);
  return { config, explained };
}

/** Flags without a row, as settings of the servers they belong to. */
function passedThrough(assigned: ReadonlyMap<string, Assignment>): Pick<RunConfig, "sglangArgs" | "routerArgs"> {
  const passed = { sglangArgs: {}, routerArgs: {} } as { readonly [K in "sglangArgs" | "routerArgs"]: Record<string, PassThroughValue> };
  for (const [name, { raw }] of assigned) {
    const member = table.has(name) ? null : familyOf(name);
    if (member !== null) passed[member.family.key][member.setting] = raw as PassThroughValue;
  }
  return passed satisfies Record<string, PassThrough>;
}

/** What `--sglang-config` says; a file that is not there is named with the other paths. */
function readEngineModels(values: FlagValues, input: ConfigInput, issues: string[]): readonly EngineModel[] | null | "broken" {
  const path = values.sglangConfig;
  if (path === null || input.paths.kind(path) !== "file") return null;
  const { models, issues: found } = parseEngineModels(readConfig(path, input.readFile), path, values);
  issues.push(...found);
  return found.length > 0 ? "broken" : models;
}

function check(row: FlagRow, assignment: Assignment, issues: string[]): { readonly value: unknown } | null {
  const parsed = row.schema.safeParse(assignment.raw);
  if (parsed.success) return { value: parsed.data };
  const reasons = new Set(parsed.error.issues.map((issue) => issue.message));
  const near = row.choices === null || typeof assignment.raw !== "string" ? [] : suggestions(assignment.raw, row.choices);
  const hint = near.length > 0 ? `; did you mean ${near.join(" or ")}?` : "";
  issues.push(`${assignment.where}: ${[...reasons].join(", ")}, got ${JSON.stringify(assignment.raw)}${hint}`);
  return null;
}

/**
 * Contradictions among the values that are sound. A value that was already complained of is replaced by two others in turn: what is found
 * with both, and does not name such a flag, holds whatever it is going to be.
 */
function soundProblems(config: RunConfig, wrong: ReadonlySet<string>, find: (config: RunConfig) => readonly string[]): readonly string[] {
  if (wrong.size === 0) return find(config);
  const other: Record<string, unknown> = { ...config };
  for (const row of table.values()) if (wrong.has(row.name)) other[keyOf(row.name)] = anotherValue(row, other[keyOf(row.name)]);
  const again = new Set(find(other as RunConfig));
  return find(config).filter((issue) => again.has(issue) && !flagsIn(issue).some((name) => wrong.has(name)));
}

/** A value that the row allows and that is not `value`; where none is easily found, `value`. */
function anotherValue(row: FlagRow, value: unknown): unknown {
  const candidates = row.choices ?? [true, false, 7, 2, 1, 0.5, "?", ["?"], [7], [{ name: "n", path: "?" }]];
  return candidates.find((candidate) => candidate !== value && row.schema.safeParse(candidate).success) ?? value;
}

/** The flags that an issue names, however it writes them: `--rollout-batch-size`, `rollout_batch_size`. */
function flagsIn(issue: string): readonly string[] {
  const words = issue.replaceAll("_", "-").split(/[^a-z0-9-]+/);
  return words
    .filter((word) => word.includes("-"))
    .flatMap((word) => (table.has(word.replace(/^--/, "")) ? [word.replace(/^--/, "")] : []));
}

/** Without its file every other complaint would be about what the file says. */
function readConfig(file: string, readFile: (path: string) => string): string {
  try {
    return readFile(file);
  } catch (cause) {
    const message = `--config: cannot read ${file}: ${cause instanceof Error ? cause.message : String(cause)}; name a file that is there`;
    throw new SlimeError("file.missing", message, { path: file, wanted: "--config" });
  }
}

function invalid(issues: readonly string[]): SlimeError<"config.invalid"> {
  const message =
    issues.length === 1 ? (issues[0] ?? "") : `${issues.length} problems:\n${issues.map((issue) => `  - ${issue}`).join("\n")}`;
  return new SlimeError("config.invalid", message, { issues });
}

function deepFreeze(value: unknown): unknown {
  if (typeof value === "object" && value !== null) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}

/** The rows as plain data, for help texts and the golden file. */
export function flagListing(): readonly {
  readonly name: string;
  readonly type: string;
  readonly default: unknown;
  readonly required: boolean;
  readonly group: string;
  readonly env: string;
  readonly reader: string;
  readonly origin: string;
  readonly help: string;
}[] {
  return [...table.values()].map((row) => ({
    name: row.name,
    type: row.choices === null ? row.shape : row.choices.join("|"),
    default: row.required ? null : row.default,
    required: row.required,
    group: row.group,
    env: envOf(row.name),
    reader: row.reader,
    origin: row.origin,
    help: row.help,
  }));
}
