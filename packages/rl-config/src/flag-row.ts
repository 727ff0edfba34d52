import { z } from "zod";

/** `rollout-batch-size` as a key of the resolved config: `rolloutBatchSize`. */
export type Camel<Name extends string> = Name extends `${infer Head}-${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name;

/** How the words of a command line become one value. */
export type FlagShape = "switch" | "integer" | "number" | "text" | "choice" | "texts" | "integers" | "json" | "pairs";

export const flagGroups = [
  "cluster",
  "engines",
  "router",
  "model",
  "data",
  "loop",
  "sampling",
  "eval",
  "algorithm",
  "optimizer",
  "reward",
  "checkpoint",
  "async",
  "run",
] as const;
export type FlagGroup = (typeof flagGroups)[number];

/**
 * One flag: name (upstream's where upstream has it), shape, default, help, and who reads it.
 * F1: `reader` is a folder of sources in which the config key occurs; a test fails for a flag nobody reads.
 * F2: one name, one key, one environment variable; no aliases but `-`/`_`.
 */
export interface FlagRow<Name extends string = string, Value = unknown> {
  readonly name: Name;
  readonly shape: FlagShape;
  readonly schema: z.ZodType<Value>;
  readonly default: Value;
  readonly required: boolean;
  readonly choices: readonly string[] | null;
  readonly group: FlagGroup;
  readonly help: string;
  /** Path below the repository root, without `src`: `packages/training`, `apps/slime`. */
  readonly reader: string;
  /** Upstream's name and meaning, or ours alone. */
  readonly origin: "upstream" | "own";
}

interface Facts {
  readonly group: FlagGroup;
  readonly help: string;
  readonly reader: string;
  readonly origin?: "own";
}

type WithDefault<Value> = Facts & { readonly default: Value };
type Range = { readonly min?: number; readonly max?: number; readonly above?: number };

const row = <Name extends string, Value>(
  name: Name,
  shape: FlagShape,
  schema: z.ZodType<Value>,
  facts: WithDefault<Value>,
  extra: { readonly required?: boolean; readonly choices?: readonly string[] } = {},
): FlagRow<Name, Value> => ({
  name,
  shape,
  schema,
  default: facts.default,
  required: extra.required ?? false,
  choices: extra.choices ?? null,
  group: facts.group,
  help: facts.help,
  reader: facts.reader,
  origin: facts.origin ?? "upstream",
});

const ranged = (schema: z.ZodNumber, range: Range): z.ZodNumber => {
  let out = schema;
  if (range.min !== undefined) out = out.min(range.min, `must be at least ${range.min}`);
  if (range.max !== undefined) out = out.max(range.max, `must be at most ${range.max}`);
  if (range.above !== undefined) out = out.gt(range.above, `must be greater than ${range.above}`);
  return out;
};

/** `--flag`, absent: off. */
export const toggle = <N extends string>(name: N, facts: Facts): FlagRow<N, boolean> =>
  row(name, "switch", z.boolean("must be true or false"), { ...facts, default: false });

export const integer = <N extends string>(name: N, facts: WithDefault<number> & Range): FlagRow<N, number> =>
  row(name, "integer", ranged(z.int("must be a whole number"), facts), facts);

export const integerOrNone = <N extends string>(name: N, facts: Facts & Range): FlagRow<N, number | null> =>
  row(name, "integer", ranged(z.int("must be a whole number"), facts).nullable(), { ...facts, default: null });

/** Must be given. The default is never used; 0 marks it in listings. */
export const integerRequired = <N extends string>(name: N, facts: Facts & Range): FlagRow<N, number> =>
  row(name, "integer", ranged(z.int("must be a whole number"), facts), { ...facts, default: 0 }, { required: true });

export const number = <N extends string>(name: N, facts: WithDefault<number> & Range): FlagRow<N, number> =>
  row(name, "number", ranged(z.number("must be a number"), facts), facts);

export const numberOrNone = <N extends string>(name: N, facts: Facts & Range): FlagRow<N, number | null> =>
  row(name, "number", ranged(z.number("must be a number"), facts).nullable(), { ...facts, default: null });

export const text = <N extends string>(name: N, facts: WithDefault<string>): FlagRow<N, string> =>
  row(name, "text", z.string("must be text").min(1, "must not be empty"), facts);

export const textOrNone = <N extends string>(name: N, facts: Facts): FlagRow<N, string | null> =>
  row(name, "text", z.string("must be text").min(1, "must not be empty").nullable(), { ...facts, default: null });

export const textRequired = <N extends string>(name: N, facts: Facts): FlagRow<N, string> =>
  row(name, "text", z.string("must be text").min(1, "must not be empty"), { ...facts, default: "" }, { required: true });

export const choice = <N extends string, const C extends readonly [string, ...string[]]>(
  name: N,
  choices: C,
  facts: WithDefault<C[number]>,
): FlagRow<N, C[number]> =>
  row(name, "choice", z.enum(choices, `must be one of ${choices.join(", ")}`) as z.ZodType<C[number]>, facts, { choices });

export const choiceOrNone = <N extends string, const C extends readonly [string, ...string[]]>(
  name: N,
  choices: C,
  facts: Facts,
): FlagRow<N, C[number] | null> =>
  row(
    name,
    "choice",
    z.enum(choices, `must be one of ${choices.join(", ")}`).nullable() as z.ZodType<C[number] | null>,
    { ...facts, default: null },
    { choices },
  );

export const texts = <N extends string>(name: N, facts: Facts): FlagRow<N, readonly string[]> =>
  row(name, "texts", z.array(z.string()).readonly(), { ...facts, default: [] });

export const integers = <N extends string>(name: N, facts: Facts): FlagRow<N, readonly number[]> =>
  row(name, "integers", z.array(z.int("must be whole numbers")).readonly(), { ...facts, default: [] });

export const json = <N extends string>(name: N, facts: Facts): FlagRow<N, Readonly<Record<string, unknown>>> =>
  row(name, "json", z.record(z.string(), z.unknown(), "must be a JSON object"), { ...facts, default: {} });

export interface NamedPath {
  readonly name: string;
  readonly path: string;
}

/** `--flag NAME PATH [NAME PATH …]`, repeatable. */
export const pairs = <N extends string>(name: N, facts: Facts): FlagRow<N, readonly NamedPath[]> =>
  row(name, "pairs", z.array(z.strictObject({ name: z.string().min(1), path: z.string().min(1) })).readonly(), { ...facts, default: [] });

/** The key of a flag in the resolved config. */
export function keyOf<Name extends string>(name: Name): Camel<Name> {
  return name.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()) as Camel<Name>;
}

/** The environment variable of a flag: `SLIME_FLAG_ROLLOUT_BATCH_SIZE`. */
export function envOf(name: string): string {
  return `${envPrefix}${name.replaceAll("-", "_").toUpperCase()}`;
}

export const envPrefix = "SLIME_FLAG_";
