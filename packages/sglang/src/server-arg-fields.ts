import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { SlimeError } from "@slime/core";

const script = fileURLToPath(new URL("../python/argument_fields.py", import.meta.url));

/** A Python's start, on a cold disk, and the parse of 7,000 lines. */
const readMsMax = 60_000;
const outputBytesMax = 4 << 20;

/** One setting of an installed SGLang or sglang_router. */
export interface ArgField {
  /** Of the field in its class. */
  readonly name: string;
  /** What the command line calls it, in snake_case; null: it has no flag. */
  readonly flag: string | null;
  readonly aliases: readonly string[];
  /** Taken, with a warning or with no effect. */
  readonly deprecated: boolean;
  /** There is a `--no-` form. */
  readonly negatable: boolean;
}

/** Settings by every name they go by: field, flag and aliases, all in snake_case. */
export type ArgTable = ReadonlyMap<string, ArgField>;

export interface ReadFieldsOptions {
  /** The environment of that Python, PYTHONPATH included. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/**
 * What the SGLang of that Python takes, read from its source without importing it (0.4 s, no GPU). Null: SGLang is not installed there.
 * @throws SlimeError `process.start` when there is no such Python.
 */
export function serverArgTable(python: string, options: ReadFieldsOptions): Promise<ArgTable | null> {
  return argTable(python, ["sglang", "srt/server_args.py", "ServerArgs", "srt/arg_groups/fields"], options);
}

/** What the sglang_router of that Python takes, by `RouterArgs`' own names; see `serverArgTable`. */
export function routerArgTable(python: string, options: ReadFieldsOptions): Promise<ArgTable | null> {
  return argTable(python, ["sglang_router", "router_args.py", "RouterArgs"], options);
}

/** The names a `--sglang-*` flag may have with the SGLang of that Python, in snake_case. Null: it is not installed there. */
export async function serverArgFields(python: string, options: ReadFieldsOptions): Promise<ReadonlySet<string> | null> {
  const table = await serverArgTable(python, options);
  return table === null ? null : new Set([...table].flatMap(([name, { flag }]) => (flag === null ? [] : [name])));
}

/** The names a `--router-*` flag may have with the sglang_router of that Python. Null: it is not installed there. */
export async function routerArgFields(python: string, options: ReadFieldsOptions): Promise<ReadonlySet<string> | null> {
  const table = await routerArgTable(python, options);
  return table === null ? null : new Set(table.keys());
}

/** The table of a list of settings. */
export function argTableOf(fields: readonly ArgField[]): ArgTable {
  const table = new Map<string, ArgField>();
  for (const field of fields) {
    for (const name of [field.name, field.flag, ...field.aliases]) if (name !== null && !table.has(name)) table.set(name, field);
  }
  return table;
}

async function argTable(python: string, what: readonly [string, ...string[]], { env }: ReadFieldsOptions): Promise<ArgTable | null> {
  const output = await new Promise<string>((resolve, reject) => {
    execFile(python, [script, ...what], { env: { ...env }, timeout: readMsMax, maxBuffer: outputBytesMax }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const last = stderr.trim().split("\n").at(-1) ?? "";
      const reason = last === "" ? error.message : last;
      reject(
        new SlimeError(
          "process.start",
          `could not ask ${python} what ${what[0]} takes: ${reason}; --sglang-python must name a Python`,
          { what: python },
          { cause: error },
        ),
      );
    });
  });
  const fields = JSON.parse(output) as readonly ArgField[] | null;
  return fields === null ? null : argTableOf(fields);
}
