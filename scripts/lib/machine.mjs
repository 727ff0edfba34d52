// What a measurement was taken on, and of which source.
import { spawnSync } from "node:child_process";
import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { root } from "./setup.mjs";

const git = (...args) => spawnSync("git", args, { cwd: root, encoding: "utf8" }).stdout.trim();

/** Written at the head of every result file. `changed`: the source (not earlier results) differed from the commit. */
export function machineFacts() {
  return {
    machine: `${process.platform} ${process.arch}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    node: process.version,
    commit: git("rev-parse", "HEAD") || "unknown",
    changed: git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!soak") !== "",
    date: new Date().toISOString(),
  };
}

/** A line for a person when other work is under way: such numbers mean little. Null when all is quiet. */
export function busyNote() {
  const load = loadavg()[0];
  return load > 0.5 * availableParallelism()
    ? `this machine is busy (load ${load.toFixed(1)} on ${availableParallelism()} cores): take these numbers again when it is not`
    : null;
}

/** Rows as aligned columns; the first row is the head. */
export function tableLines(rows) {
  const widths = rows[0].map((_, at) => Math.max(...rows.map((row) => row[at].length)));
  return rows.map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at]))
      .join("  ")
      .trimEnd(),
  );
}
