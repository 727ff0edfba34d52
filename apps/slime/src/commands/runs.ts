import { relative } from "node:path";
import { listRuns, type RunView } from "@slime/training";
import type { Command } from "commander";
import { shorten } from "../client/text-table.js";
import { runOwner } from "../run-owner.js";
import { outputsDirectory } from "./train.js";

/** Adds `slime runs`. */
export function register(program: Command): void {
  program
    .command("runs")
    .description("the runs below a directory: how far, how well, what became of them")
    .option("--dir <directory>", "where runs lie", outputsDirectory)
    .option("--json", "one JSON object a line")
    .action(async (options: { readonly dir: string; readonly json?: true }) => {
      const views = await listRuns(options.dir, await runOwner());
      if (options.json === true) process.stdout.write(views.map((view) => `${JSON.stringify(view)}\n`).join(""));
      else process.stdout.write(views.length === 0 ? `no runs below ${options.dir}\n` : `${runLines(views).join("\n")}\n`);
    });
}

/** A table: one run a line, oldest first. */
export function runLines(views: readonly RunView[]): readonly string[] {
  const rows = views.map((view) => [
    relative(process.cwd(), view.root) || view.root,
    view.mode,
    `${view.trained}/${view.rollouts}`,
    view.reward === null ? "–" : view.reward.toFixed(3),
    Object.entries(view.evals)
      .map(([name, value]) => `${name.slice("eval/".length)} ${value.toFixed(3)}`)
      .join(", ") || "–",
    view.attempts > 1 ? `${view.state} (attempt ${view.attempts})` : view.state,
    whyOf(view),
  ]);
  const header = ["run", "mode", "rollouts", "reward", "eval", "state", ""];
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
  return [header, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

/** What there is to say of a state: why it failed, who drives it, where it goes on. */
function whyOf(view: RunView): string {
  if (view.failure !== null) return shorten(view.failure, 100);
  if (view.state === "running") return `pid ${view.holder?.pid ?? ""}`;
  if (view.state === "held") return `by ${view.holder?.host ?? ""}, pid ${view.holder?.pid ?? ""}`;
  if (view.state === "stopped" || view.state === "killed")
    return view.checkpoint === null ? "no checkpoint" : `resumes from ${view.checkpoint}`;
  return "";
}
