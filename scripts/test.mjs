#!/usr/bin/env node
// npm test [-- --fast] [-- vitest arguments]: installs, builds, runs every test, ends with one line of counts.
// What starts whole clusters (test/integration) runs after the rest and one file at a time, so that nothing is judged by a crowded
// machine. --fast leaves it out.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build, install, root } from "./lib/setup.mjs";

const given = process.argv.slice(2);
const fast = given.includes("--fast");
const rest = given.filter((argument) => argument !== "--fast");
const phases = [["--exclude", "test/integration/**"], ...(fast ? [] : [["--no-file-parallelism", "test/integration/"]])];

install();
build();
const folder = mkdtempSync(join(tmpdir(), "slime-test-"));
const counts = { passed: 0, failed: 0, skipped: 0 };
for (const [at, phase] of phases.entries()) {
  const report = join(folder, `report-${at}.json`);
  const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const done = spawnSync(
    process.execPath,
    [vitest, "run", ...(rest.length > 0 ? ["--passWithNoTests"] : []), ...reporters, ...phase, ...rest],
    {
      cwd: root,
      stdio: "inherit",
    },
  );
  try {
    const said = JSON.parse(readFileSync(report, "utf8"));
    counts.passed += said.numPassedTests;
    counts.failed += Math.max(said.numFailedTests, done.status === 0 ? 0 : 1);
    counts.skipped += said.numPendingTests;
  } catch {
    process.stdout.write("\nvitest wrote no report\n");
    counts.failed += 1;
  }
}
rmSync(folder, { recursive: true, force: true });
if (counts.passed === 0) counts.failed = Math.max(1, counts.failed);
process.stdout.write(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exit(counts.failed === 0 ? 0 : 1);
