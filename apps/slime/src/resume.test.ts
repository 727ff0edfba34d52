import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { type ResumeInput, resumeLines } from "./resume.js";

const root = join(process.cwd(), "outputs", "sort-1");
const manifest = await readFile(fileURLToPath(new URL("../../../test/golden/run/manifest.json", import.meta.url)), "utf8");

const linesOf = (names: readonly string[], runDir: string | null, env: Readonly<Record<string, string>>) =>
  resumeLines({
    run: {
      paths: { root },
      storage: { checkpoints: async () => names.map((name) => ({ name, directory: join(root, "checkpoints", name), manifest })) },
      settings: { loop: { rollouts: 9 } },
    },
    config: { mode: "sync", runDir },
    words: ["--config", "run.yaml", ...(runDir === null ? [] : ["--run-dir", runDir])],
    env: { PATH: "/clone/node_modules/.bin", ...env },
  } as unknown as ResumeInput);

it.each([
  [
    "a job with its default directory",
    ["step-0000004"],
    null,
    { SLIME_JOB_ID: "job_1" },
    /rollout 4 of 9 from outputs\/sort-1\/checkpoints\/step-0000004/,
    "npx slime job submit -- slime train --config run.yaml --run-dir outputs/sort-1",
  ],
  ["a driver of its own", [], "outputs/sort-1", {}, /no checkpoint.*anew/, "npx slime train --config run.yaml --run-dir outputs/sort-1"],
] as const)("%s is told from where it goes on, and with what", async (_what, names, runDir, env, where, command) => {
  const [from, how] = await linesOf(names, runDir, env);
  expect(from).toMatch(where);
  expect(how).toBe(`  with    ${command}`);
});
