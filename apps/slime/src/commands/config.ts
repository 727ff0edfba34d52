import { flagListing, type RunMode } from "@slime/rl-config";
import type { Command } from "commander";
import { readRunFlags, runFlagsCommand } from "../run-flags.js";

/** Adds `slime config explain`. */
export function register(program: Command): void {
  const config = program.command("config").description("the flags of a run");
  runFlagsCommand(config, "explain", "each flag's value and who set it; without flags: all there are")
    .option("--async", "as slime train-async reads them")
    .action((words: string[], options: { readonly async?: true }) => {
      const mode: RunMode = options.async === true ? "async" : "sync";
      process.stdout.write(`${(words.length === 0 ? listing() : explained(mode, words)).join("\n")}\n`);
    });
}

function explained(mode: RunMode, words: readonly string[]): readonly string[] {
  const rows = readRunFlags(mode, words).explained.map(({ row, value, where }) => [`--${row.name}`, JSON.stringify(value), where] as const);
  const [name, value] = [0, 1].map((column) => Math.max(...rows.map((row) => row[column as 0 | 1].length)));
  return rows.map((row) => `${row[0].padEnd(name ?? 0)}  ${row[1].padEnd(value ?? 0)}  ${row[2]}`);
}

function listing(): readonly string[] {
  return flagListing().flatMap((row) => [
    `--${row.name}  ${row.type}${row.required ? ", required" : `, default ${JSON.stringify(row.default)}`}  (${row.env}${row.origin === "own" ? "; not in upstream slime" : ""}; read in ${row.reader})`,
  ]);
}
