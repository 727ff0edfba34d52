#!/usr/bin/env node
// npm run generate: everything in the tree that a program wrote, written again. Deterministic; verify fails on a difference.
import { delimiter, join } from "node:path";
import { install, installTools, root, run, tool } from "./lib/setup.mjs";

install();
installTools();
const env = { ...process.env, PATH: `${join(root, "tools", "node_modules", ".bin")}${delimiter}${process.env.PATH}` };
run(tool("buf"), ["lint"], { cwd: join(root, "proto"), env });
run(tool("buf"), ["generate"], { cwd: join(root, "proto"), env });
run(process.execPath, [join(root, "packages", "embedded", "scripts", "build-kernels.mjs")], { env });
