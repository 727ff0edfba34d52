#!/usr/bin/env node
import { existsSync } from "node:fs";

const main = new URL("../dist/main.js", import.meta.url);
if (!existsSync(main)) {
  process.stderr.write("slime-head is not built yet: run `npm run build` in the clone, then try again.\n");
  process.exit(69);
}
await import(main.href);
