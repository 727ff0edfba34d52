/** The program itself, from its build: starts, is found, is killed, is there again, stops. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { HeadFile } from "./head-file.js";
import { resolveHead } from "./head-options.js";

const program = new URL("../bin/slime-head.mjs", import.meta.url).pathname;
let home = "";
const children: ChildProcess[] = [];
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "slime-head-app-"));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await rm(home, { recursive: true, force: true });
});

const env = () => ({ ...process.env, SLIME_HOME: home });
const run = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { env: env(), encoding: "utf8", timeout: 15_000 });
  return { status, output: stdout + stderr };
};

/** Starts a head and waits for the lines that tell what to do next. */
async function start(...args: string[]): Promise<{
  readonly child: ChildProcess;
  readonly file: HeadFile;
  readonly exited: Promise<number | null>;
  readonly output: () => string;
}> {
  const child = spawn(process.execPath, [program, "start", "--port", "0", "--http-port", "0", "--log", "text", ...args], {
    env: env(),
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let output = "";
  const exited = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  await new Promise<void>((resolve, reject) => {
    const read = (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes("Ctrl-C stops")) resolve();
    };
    child.stdout?.on("data", read);
    child.stderr?.on("data", read);
    void exited.then((code) => reject(new Error(`it ended with ${code}: ${output}`)));
  });
  return { child, exited, output: () => output, file: JSON.parse(await readFile(join(home, "head", "head.json"), "utf8")) as HeadFile };
}

test("start, status, a second start refused, SIGKILL, the same cluster again, stop", async () => {
  const first = await start();
  expect(first.output()).toContain(`slime-worker join ${first.file.grpcAddress}`);
  expect(run("status")).toMatchObject({ status: 0, output: expect.stringContaining(first.file.clusterId) as string });
  expect(run("start", "--port", "0", "--http-port", "0")).toMatchObject({
    status: 69,
    output: expect.stringContaining(`pid ${first.child.pid}`) as string,
  });
  first.child.kill("SIGKILL");
  await first.exited;
  expect(run("status")).toMatchObject({ status: 69, output: expect.stringContaining("is dead") as string });
  const second = await start();
  expect(second.file).toMatchObject({ clusterId: first.file.clusterId, epoch: 2 });
  expect(run("stop")).toMatchObject({ status: 0, output: expect.stringContaining(": stopped") as string });
  expect(await second.exited).toBe(0);
  expect(existsSync(join(home, "head", "head.json"))).toBe(false);
  expect(run("stop")).toMatchObject({ status: 0, output: expect.stringContaining("no head runs") as string });
}, 60_000);

test("Ctrl-C ends it in order; an address beyond loopback and a wrong flag are refused with their reasons", async () => {
  const head = await start();
  head.child.kill("SIGINT");
  expect(await head.exited).toBe(0);
  expect(head.output()).toContain("slime-head: stopped");
  expect(run("start", "--host", "0.0.0.0", "--port", "0")).toMatchObject({ status: 78, output: expect.stringContaining("TLS") as string });
  expect(run("start", "--port", "x", "--http-port", "70000")).toMatchObject({
    status: 78,
    output: expect.stringMatching(/--port.*--http-port/) as string,
  });
  expect(run("begin").status).toBe(2);
}, 60_000);

describe("options", () => {
  test("flag, then environment, then default", () => {
    expect(resolveHead({}, { SLIME_HOME: "/h" })).toMatchObject({
      stateDirectory: "/h/head",
      options: { port: 6380, httpPort: 8265, host: "127.0.0.1", nodeIp: "127.0.0.1", grace: 10 },
    });
    expect(resolveHead({ port: "0", stateDir: "/s" }, { SLIME_NODE_IP: "127.0.0.2" })).toMatchObject({
      stateDirectory: "/s",
      options: { port: 0, nodeIp: "127.0.0.2" },
    });
  });
});
