// A Python environment outside of the tree, made once for each recipe: PE1 it is used only when its marker names the recipe, which is
// written last and whole; PE2 one process makes it at a time; PE3 every step has a time limit.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";

/** Thrown where this machine lacks something that nobody here can fix: the caller skips, aloud. */
export class Unavailable extends Error {}

/** Environments and models lie here. */
export function realCache(env = process.env) {
  return env.SLIME_REAL_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "slime-real");
}

/** Path of a Python 3.12 that runs. @throws Unavailable naming what was tried. */
export function findPython312(env = process.env) {
  const pyenv = spawnSync("pyenv", ["root"], { encoding: "utf8", timeout: 10_000 });
  const versions = pyenv.status === 0 ? join(pyenv.stdout.trim(), "versions") : null;
  const owned =
    versions !== null && existsSync(versions)
      ? readdirSync(versions)
          .filter((name) => name.startsWith("3.12."))
          .map((name) => join(versions, name, "bin", "python"))
      : [];
  // A shim of pyenv is on PATH even where it runs nothing, so each is asked.
  const tried = env.SLIME_PYTHON312 ? [env.SLIME_PYTHON312] : ["python3.12", ...owned, "python3"];
  for (const candidate of tried) {
    const asked = "import sys, venv; print(sys.executable) if sys.version_info[:2] == (3, 12) else sys.exit(1)";
    const answer = spawnSync(candidate, ["-c", asked], { encoding: "utf8", timeout: 20_000 });
    if (answer.status === 0) return answer.stdout.trim();
  }
  throw new Unavailable(`no Python 3.12 with venv runs here (tried ${tried.join(", ")}; SLIME_PYTHON312 names another)`);
}

/** @throws Unavailable where the wheels cannot be installed, or the stand-in libraries not be compiled. */
export function checkMachine() {
  if (process.platform !== "linux" || process.arch !== "x64")
    throw new Unavailable(`the wheels are for Linux on x86-64, this is ${process.platform} ${process.arch}`);
  const lacking = ["gcc", "nm", "readelf"].filter((tool) => spawnSync(tool, ["--version"], { timeout: 20_000 }).status !== 0);
  if (lacking.length > 0) throw new Unavailable(`${lacking.join(", ")} missing: install gcc and binutils`);
}

/** The first 16 hex digits over names and contents of files and of plain values, in their order. */
export function hashOf(...things) {
  const hash = createHash("sha256");
  const take = (thing) => {
    if (typeof thing === "object" && "file" in thing) {
      const { file } = thing;
      if (statSync(file).isDirectory()) for (const name of sources(file)) take({ file: join(file, name) });
      else
        hash
          .update(`${file.split("/").at(-1)}\n`)
          .update(readFileSync(file))
          .update("\n");
    } else hash.update(`${JSON.stringify(thing)}\n`);
  };
  things.forEach(take);
  return hash.digest("hex").slice(0, 16);
}

/** What lies in a folder, without what Python leaves there. */
const sources = (folder) =>
  readdirSync(folder)
    .filter((name) => name !== "__pycache__")
    .sort();

/**
 * Makes `folder` by `make(folder)` unless it is there and complete; a half-made one is made anew. PE1, PE2.
 */
export async function makeOnce(folder, msMax, make) {
  const marker = join(folder, ".complete");
  if (existsSync(marker)) return false;
  mkdirSync(join(folder, ".."), { recursive: true });
  const unlock = await lock(folder, msMax);
  try {
    if (existsSync(marker)) return false;
    rmSync(folder, { recursive: true, force: true });
    await make(folder);
    writeFileSync(`${marker}.part`, new Date().toISOString());
    renameSync(`${marker}.part`, marker);
    return true;
  } finally {
    unlock();
  }
}

/** A name in the kernel (an abstract socket): given up with its process, however that ends. */
async function lock(path, msMax) {
  const name = `\0slime-real-${createHash("sha256").update(path).digest("hex").slice(0, 32)}`;
  const end = Date.now() + msMax;
  for (let told = false; ; told = true) {
    const server = createServer();
    const got = await new Promise((resolve, reject) => {
      server.once("error", (error) => (error.code === "EADDRINUSE" ? resolve(false) : reject(error)));
      server.listen(name, () => resolve(true));
    });
    if (got) return () => server.close();
    if (Date.now() > end) throw new Error(`another process makes ${path} for more than ${msMax / 60_000} minutes`);
    if (!told) process.stdout.write(`  another process makes ${path}: waiting\n`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

const network =
  /dns error|error sending request|client error|Connection(Error| refused| reset)|timed out|No matching distribution|Max retries/i;

/**
 * Runs one step with a progress line and a time limit; its output is kept for the message. PE3.
 * @throws Unavailable when it failed for want of the network, Error otherwise, both with the end of its output.
 */
export async function step(what, msMax, [command, ...args], options = {}) {
  const begun = Date.now();
  process.stdout.write(`  ${what} …`);
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options, env: { ...process.env, ...options.env } });
  let said = "";
  const keep = (text) => {
    said = (said + text).slice(-16_384);
  };
  child.stdout.setEncoding("utf8").on("data", keep);
  child.stderr.setEncoding("utf8").on("data", keep);
  let late = false;
  const limit = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, msMax);
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);
  const status = await new Promise((resolve) => {
    child.once("error", (error) => {
      keep(String(error));
      resolve(-1);
    });
    child.once("close", resolve);
  });
  clearTimeout(limit);
  process.off("exit", kill);
  process.stdout.write(` ${((Date.now() - begun) / 1_000).toFixed(1)} s\n`);
  if (status === 0) return said;
  const end = said.trim().split("\n").slice(-12).join("\n");
  if (late) throw new Error(`${what}: not done after ${msMax / 1_000} s\n${end}`);
  if (network.test(said)) throw new Unavailable(`${what}: the package registry does not answer\n${end}`);
  throw new Error(`${what}: ${command} ended with ${status}\n${end}`);
}

/** Copies of folders, so that what runs with them does not change with the tree. Returns their paths, in order. */
export async function keepCopies(cache, folders) {
  const kept = join(cache, `shims-${hashOf(...folders.map((file) => ({ file })))}`);
  const names = folders.map((folder) => folder.split("/").at(-1));
  await makeOnce(kept, 60_000, async () => {
    for (const [at, folder] of folders.entries())
      cpSync(folder, join(kept, names[at]), { recursive: true, filter: (path) => !path.endsWith("__pycache__") });
  });
  return names.map((name) => join(kept, name));
}

/** A virtual environment with exactly the packages of `requirements` (files of pinned names) and torch's stand-in libraries. */
export async function makePythonEnv(folder, { python, uv, requirements, cudaStubs }) {
  const own = join(folder, "bin", "python");
  await step("virtual environment", 240_000, [python, "-m", "venv", folder]);
  await step(uv, 240_000, [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", uv]);
  const install = [join(folder, "bin", "uv"), "pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--python", own];
  for (const file of requirements) {
    const packages = readFileSync(file, "utf8")
      .split("\n")
      .filter((line) => /^[a-zA-Z]/.test(line)).length;
    const name = file
      .split("/")
      .at(-1)
      .replace(/\.txt$/, "");
    await step(`${name}: ${packages} packages`, 600_000, [...install, "-r", file]);
  }
  await step("stand-ins for NVIDIA's libraries", 180_000, [own, cudaStubs]);
  const check = "import torch; assert torch.distributed.is_gloo_available() and not torch.cuda.is_available()";
  await step("torch without CUDA", 240_000, [own, "-c", check]);
}
