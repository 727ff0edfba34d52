#!/usr/bin/env node
// npm run quickstart [-- flags of slime train]: makes the clone ready, then trains a small model on a cluster of this machine.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { build, install, root } from "./lib/setup.mjs";

install();
build();
const flags = process.argv.slice(2);
const slime = join(root, "apps", "slime", "bin", "slime.mjs");
const words = ["quickstart", ...(flags.length > 0 ? ["--", ...flags] : [])];
// Ctrl-C reaches both; the command ends its cluster in order and this waits for it.
process.on("SIGINT", () => {});
const done = spawnSync(process.execPath, [slime, ...words], { cwd: root, stdio: "inherit" });
process.exit(done.status ?? 130);
