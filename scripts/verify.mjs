#!/usr/bin/env node
// npm run verify: generate (and fail on a difference), format, lint, types, tests.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { build, install, installTools, root, run, tool } from "./lib/setup.mjs";

install();
installTools();
const generated = ["packages/rpc/src/gen", "packages/embedded/src/gen"];
run(process.execPath, [join(root, "scripts", "generate.mjs")]);
const status = spawnSync("git", ["status", "--porcelain", "--", ...generated], { cwd: root, encoding: "utf8" });
if (status.stdout.trim() !== "") {
  process.stderr.write(`generated code differs from what is committed; commit the result of npm run generate:\n${status.stdout}`);
  process.exit(1);
}
run(tool("biome"), ["ci", "--no-errors-on-unmatched", "."]);
build();
run(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", "test/tsconfig.json"]);
run(process.execPath, [join(root, "scripts", "test.mjs")]);
