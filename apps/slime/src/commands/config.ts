import { flagListing, type RunMode } from "@slime/rl-config";
import type { Command } from "commander";
import { readRunFlags, runFlagsCommand } from "../run-flags.js";

/** Adds `slime config explain`. */
export function register(program: Command): void {
  const config = program.command("config").description("the flags of a run");
  runFlagsCommand(config, "explain", "each flag's value and who set it; without flags: all there are; FLAG alone (lr, rm-type): what it is")
    .option("--async", "as slime train-async reads them")
    .action((words: string[], options: { readonly async?: true }) => {
      const mode: RunMode = options.async === true ? "async" : "sync";
      const names = words.map(flagName);
      const lines =
        words.length === 0 ? listing() : names.every((name) => name !== null) ? names.flatMap(described) : explained(mode, words);
      process.stdout.write(`${lines.join("\n")}\n`);
    });
}

function explained(mode: RunMode, words: readonly string[]): readonly string[] {
  const rows = readRunFlags(mode, words).explained.map(({ row, value, where }) => [`--${row.name}`, JSON.stringify(value), where] as const);
  const [name, value] = [0, 1].map((column) => Math.max(...rows.map((row) => row[column as 0 | 1].length)));
  return rows.map((row) => `${row[0].padEnd(name ?? 0)}  ${row[1].padEnd(value ?? 0)}  ${row[2]}`);
}

/** `lr` or `rollout_batch_size` alone asks what the flag is. */
function flagName(word: string): string | null {
  const name = word.replaceAll("_", "-");
  return flagListing().some((row) => row.name === name) ? name : null;
}

function described(name: string | null): readonly string[] {
  const row = flagListing().find((each) => each.name === name);
  if (row === undefined) return [];
  const kind = row.type.includes("|") ? `one of ${row.type.replaceAll("|", ", ")}` : row.type;
  return [
    `--${row.name}  ${row.help}`,
    `  ${kind}${row.required ? ", required" : `, default ${JSON.stringify(row.default)}`}`,
    `  in the environment: ${row.env}; in --config: ${row.name}; ${row.origin === "own" ? "not in upstream slime" : "upstream's"}; read in ${row.reader}`,
  ];
}

function listing(): readonly string[] {
  return flagListing().flatMap((row) => [
    `--${row.name}  ${row.type}${row.required ? ", required" : `, default ${JSON.stringify(row.default)}`}  (${row.env}${row.origin === "own" ? "; not in upstream slime" : ""}; read in ${row.reader})`,
  ]);
}
