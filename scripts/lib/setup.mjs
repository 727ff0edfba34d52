// What must run before an install is plain JavaScript. Makes a clone ready: dependencies, then the build.
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** Runs a command in the clone with its output shown; ends this process with its exit code when it fails. */
export function run(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  if (done.error) throw done.error;
  if (done.status !== 0) process.exit(done.status ?? 1);
}

/** Installs what the lock file names, unless that has been done. Install scripts stay off (.npmrc). */
export function install() {
  const installed = join(root, "node_modules", ".package-lock.json");
  const lock = join(root, "package-lock.json");
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  process.stdout.write("installing dependencies …\n");
  run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
}

/** Compiles every package that changed since the last build. */
export function build() {
  process.stdout.write("building …");
  const from = Date.now();
  run(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-b"]);
  process.stdout.write(` ${((Date.now() - from) / 1_000).toFixed(1)} s\n`);
}

/** The clone's own tools, linters and generators: apart, so that using slime does not download them. Their versions are exact. */
export function installTools() {
  const folder = join(root, "tools");
  const installed = join(folder, "node_modules", ".package-lock.json");
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(folder, "package.json")).mtimeMs) return;
  process.stdout.write("installing the clone's tools …\n");
  run("npm", ["install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: folder });
}

export const tool = (name) => join(root, "tools", "node_modules", ".bin", name);
