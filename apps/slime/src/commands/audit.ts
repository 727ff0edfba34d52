import { SlimeError } from "@slime/core";
import { type AuditReport, auditRun, findRun, readRunRecord, runPaths } from "@slime/training";
import type { Command } from "commander";
import { openTrainingSource } from "../run-data.js";
import { outputsDirectory } from "./train.js";

/** Adds `slime audit`. */
export function register(program: Command): void {
  program
    .command("audit")
    .description("was every prompt trained exactly once? compares data cursor, ledger and the trainer's own record")
    .argument("<run>", "run directory, or its name below --dir")
    .option("--dir <directory>", "where runs lie", outputsDirectory)
    .option("--json", "the report as JSON; the exit code is the same")
    .action(async (run: string, options: { readonly dir: string; readonly json?: true }) => {
      const root = await findRun(run, options.dir);
      const record = await readRunRecord(runPaths(root).runJson);
      if (record === null) throw new SlimeError("not_found", `${root} has no run.json`, { kind: "run", id: root });
      const report = await auditRun({
        paths: runPaths(root, record.config.save),
        openSource: () => openTrainingSource(record.config),
        samplesPerGroup: record.config.nSamplesPerPrompt,
      });
      process.stdout.write(options.json === true ? `${JSON.stringify(report, null, 2)}\n` : `${reportLines(report).join("\n")}\n`);
      if (report.findings.length > 0) {
        const issues = report.findings.map(({ kind, message }) => `${kind}: ${message}`);
        throw new SlimeError("audit.failed", `${report.findings.length} of ${report.issued} prompts are not accounted for`, { issues });
      }
    });
}

/** Findings first by name, then the sums that must add up. */
export function reportLines(report: AuditReport): readonly string[] {
  const dropped = Object.values(report.dropped).reduce((sum, count) => sum + count, 0);
  const reasons = Object.entries(report.dropped).map(([reason, count]) => `${reason} ${count}`);
  return [
    `checkpoint ${report.checkpoint}: ${report.trained} rollouts in its weights`,
    `  left the data   ${report.issued}`,
    `  trained         ${report.consumed}`,
    `  dropped         ${dropped}${reasons.length > 0 ? ` (${reasons.join(", ")})` : ""}`,
    `  handed out next ${report.pending}`,
    ...report.findings.map(({ kind, message }) => `  ${kind.toUpperCase()}: ${message}`),
    report.findings.length === 0
      ? "no prompt lost, none trained twice: data cursor, ledger and trainer agree"
      : "the three records do not agree",
  ];
}
