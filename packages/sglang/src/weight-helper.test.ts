import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "@slime/core";
import { detectPlatform } from "@slime/platform";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startWeightHelper } from "./weight-helper.js";
import type { HelperEnd, HelperPush, WeightHelper } from "./weight-helper-port.js";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "helper-"));
});
afterAll(() => rm(root, { recursive: true }));

/** An interpreter that runs our own lines in place of the helper: `on(request)` is called for each push, `say` answers. */
async function interpreter(name: string, body: string): Promise<string> {
  const path = join(root, name);
  const lines = `#!${process.execPath}
const say = (line) => process.stdout.write(JSON.stringify(line) + "\\n");
require("node:fs").appendFileSync(${JSON.stringify(`${path}.pids`)}, process.pid + "\\n");
process.stdin.on("end", () => process.exit(0));
let on = () => {};
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => on(JSON.parse(line)));
${body}`;
  await writeFile(path, lines);
  await chmod(path, 0o700);
  return path;
}

const request: HelperPush = {
  url: "http://127.0.0.1:9",
  path: "/nowhere",
  buckets: [],
  ranks: 1,
  device: "cpu",
  weightVersion: "3",
  bucketTimeoutMs: 150,
};

async function withHelper<T>(name: string, body: string, run: (helper: WeightHelper, path: string) => Promise<T>): Promise<T> {
  const python = await interpreter(name, body);
  const options = { python, env: {}, logFile: join(root, `${name}.log`), log: silentLogger, startTimeoutMs: 5_000, silenceMarginMs: 50 };
  await using helper = startWeightHelper(options);
  return await run(helper, python);
}

const ends: readonly (readonly [string, string, HelperEnd])[] = [
  [
    "done",
    `say({ ready: true }); on = ({ id }) => { say({ id, posting: 0 }); say({ id, posted: 1 }); say({ id, end: "done" }); };`,
    { kind: "done" },
  ],
  [
    "refused",
    `say({ ready: true }); on = ({ id }) => say({ id, end: "refused", status: 400, reason: "no session", posted: 0 });`,
    { kind: "refused", status: 400, reason: "no session", posted: 0 },
  ],
  [
    "silent within a post",
    `say({ ready: true }); on = ({ id }) => say({ id, posting: 0 });`,
    { kind: "lost", reason: "the weight helper said nothing for 200 ms", posted: 0 },
  ],
  [
    "silent between posts",
    `say({ ready: true }); on = ({ id }) => { say({ id, posting: 0 }); say({ id, posted: 1 }); };`,
    { kind: "failed", reason: "the weight helper said nothing for 200 ms", posted: 1 },
  ],
  [
    "dead within a post",
    `say({ ready: true }); on = ({ id }) => { say({ id, posting: 0 }); setImmediate(() => process.exit(3)); };`,
    { kind: "lost", reason: expect.stringContaining("exit code 3") as string, posted: 0 },
  ],
  ["dead at the start", "process.exit(4);", { kind: "failed", reason: expect.stringContaining("exit code 4") as string, posted: 0 }],
];

describe("W1: a push settles", () => {
  it.each(ends)("%s", async (name, body, wanted) => {
    await withHelper(name.replaceAll(" ", "-"), body, async (helper) => {
      expect(await helper.push(request)).toEqual(wanted);
    });
  });

  it("with an interpreter that is not there", async () => {
    await using helper = startWeightHelper({
      python: join(root, "no-python"),
      env: {},
      logFile: join(root, "none.log"),
      log: silentLogger,
    });
    expect(await helper.push(request)).toMatchObject({ kind: "failed", reason: expect.stringContaining("could not start") as string });
  });

  it("with one that never gets ready", async () => {
    const python = await interpreter("never", "setInterval(() => {}, 1000);");
    await using helper = startWeightHelper({ python, env: {}, logFile: join(root, "never.log"), log: silentLogger, startTimeoutMs: 100 });
    expect(await helper.push(request)).toMatchObject({
      kind: "failed",
      reason: expect.stringContaining("did not start within 100 ms") as string,
    });
  });
});

it("a helper that died is replaced at the next push; one push at a time", async () => {
  const body = `const { existsSync, writeFileSync } = require("node:fs"); const second = existsSync(${JSON.stringify(join(root, "mark"))});
writeFileSync(${JSON.stringify(join(root, "mark"))}, ""); say({ ready: true });
on = ({ id }) => (second ? say({ id, end: "done" }) : process.exit(1));`;
  await withHelper("replaced", body, async (helper) => {
    const [first, beside] = await Promise.all([helper.push(request), helper.push(request)]);
    expect([first.kind, beside]).toEqual(["failed", { kind: "failed", reason: "the weight helper is busy with another push", posted: 0 }]);
    expect(await helper.push(request)).toEqual({ kind: "done" });
  });
});

it("W2: what torch left in shared memory for a helper that was killed is removed", async () => {
  const { processes } = detectPlatform();
  const sharedMemoryRoot = await mkdtemp(join(root, "shm-"));
  const body = `say({ ready: true });
on = ({ id }) => { require("node:fs").writeFileSync(${JSON.stringify(`${sharedMemoryRoot}/torch_`)} + process.pid + "_1_0", ""); process.kill(process.pid, "SIGKILL"); };`;
  await writeFile(join(sharedMemoryRoot, "torch_1_1_0"), "another's");
  const python = await interpreter("killed", body);
  const helper = startWeightHelper({
    python,
    env: {},
    logFile: join(root, "killed.log"),
    log: silentLogger,
    platform: { processes, sharedMemoryRoot },
  });
  expect(await helper.push(request)).toMatchObject({ kind: "failed", reason: expect.stringContaining("SIGKILL") as string });
  await helper.close();
  expect(await readdir(sharedMemoryRoot)).toEqual(["torch_1_1_0"]);
});

it("W2: after close nothing is left, and no push begins", async () => {
  const [helper, path] = await withHelper(
    "closed",
    "say({ ready: true }); on = ({ id }) => say({ id, end: 'done' });",
    async (open, python) => {
      expect(await open.push(request)).toEqual({ kind: "done" });
      return [open, python] as const;
    },
  );
  for (const pid of (await readFile(`${path}.pids`, "utf8")).trim().split("\n")) expect(() => process.kill(Number(pid), 0)).toThrow();
  expect(await helper.push(request)).toMatchObject({ kind: "failed", reason: "the weight helper is closed" });
});
