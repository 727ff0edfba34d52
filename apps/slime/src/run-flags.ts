import { existsSync, readFileSync, statSync } from "node:fs";
import { type FlagGroup, flagGroups, flagListing, type Resolved, type RunMode, resolveConfig } from "@slime/rl-config";
import type { Command } from "commander";

/** Reads a run's flags from a command line, the environment and `--config`. @throws `config.invalid`, everything at once. */
export function readRunFlags(mode: RunMode, argv: readonly string[]): Resolved {
  return resolveConfig({
    mode,
    argv,
    env: process.env,
    readFile: (path) => readFileSync(path, "utf8"),
    paths: { kind: (path) => (!existsSync(path) ? "missing" : statSync(path).isDirectory() ? "directory" : "file") },
  });
}

/** A command whose words after the name are the run's flags, read by our own parser: it knows them all and finds all mistakes at once. */
export function runFlagsCommand(parent: Command, name: string, description: string): Command {
  return parent
    .command(name)
    .description(description)
    .argument(
      "[flags...]",
      "flags of the run; --config FILE.yaml holds the same names (repeatable: a later file counts above an earlier one)",
    )
    .allowUnknownOption()
    .addHelpText("after", flagHelp());
}

const titles: Readonly<Record<FlagGroup, string>> = {
  cluster: "Cluster",
  engines: "Engines (every --sglang-NAME that is not here goes to the SGLang servers as --NAME)",
  router: "Router (every --router-NAME that is not here goes to sglang_router as --NAME)",
  model: "Model",
  data: "Data",
  loop: "Loop and batches",
  sampling: "Sampling",
  eval: "Evaluation",
  algorithm: "Algorithm",
  optimizer: "Optimizer",
  reward: "Rewards",
  checkpoint: "Checkpoints",
  async: "Asynchronous training (slime train-async)",
  run: "Run",
};

function flagHelp(): string {
  const rows = flagListing();
  const width = Math.max(...rows.map((row) => row.name.length)) + 4;
  const choices = (row: (typeof rows)[number]) => (row.type.includes("|") ? ` {${row.type.replaceAll("|", ", ")}}` : "");
  const section = (group: FlagGroup) =>
    rows
      .filter((row) => row.group === group)
      .map((row) => `  --${row.name.padEnd(width - 2)}${row.help}${choices(row)}${row.required ? " (required)" : shown(row.default)}`)
      .join("\n");
  return `\nFlags (SLIME_FLAG_NAME in the environment, name: value in --config):\n${flagGroups.map((group) => `\n${titles[group]}\n${section(group)}`).join("\n")}`;
}

function shown(value: unknown): string {
  if (value === null || value === false || (Array.isArray(value) && value.length === 0)) return "";
  if (typeof value === "object") return "";
  return ` [${String(value)}]`;
}
