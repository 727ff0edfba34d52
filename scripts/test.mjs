#!/usr/bin/env node
// npm test [-- --fast] [-- vitest arguments]: installs, builds, runs every test, ends with one line of counts.
// --fast leaves out what starts clusters of processes (test/integration).
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build, install, root } from "./lib/setup.mjs";

const given = process.argv.slice(2);
const fast = given.includes("--fast");
const rest = given.filter((argument) => argument !== "--fast");
install();
build();

const folder = mkdtempSync(join(tmpdir(), "slime-test-"));
const report = join(folder, "report.json");
const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
const exclude = fast ? ["--exclude", "test/integration/**"] : [];
const done = spawnSync(
  process.execPath,
  [vitest, "run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`, ...exclude, ...rest],
  { cwd: root, stdio: "inherit" },
);
let failed = done.status === 0 ? 0 : 1;
try {
  const counts = JSON.parse(readFileSync(report, "utf8"));
  failed = Math.max(failed, counts.numFailedTests);
  process.stdout.write(`\n${counts.numPassedTests} passed, ${failed} failed, ${counts.numPendingTests} skipped\n`);
} catch {
  process.stdout.write("\nno test ran: vitest wrote no report\n");
  failed = 1;
}
rmSync(folder, { recursive: true, force: true });
process.exit(failed === 0 ? 0 : 1);
