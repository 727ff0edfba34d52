import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ActorId, systemRandom } from "@slime/core";
import {
  type ActorSpec,
  connect,
  encodeValue,
  type HostExit,
  type HostFailed,
  type HostRegistration,
  hostEnvironment,
  type IncomingCall,
  type Peer,
  type Server,
  serve,
} from "@slime/rpc";
import { hostEntry } from "@slime/runtime";
import { afterEach, beforeEach, expect, it } from "vitest";

// Starts real host processes from the build and plays their daemon.
const clusterId = "cluster_00000000000000aa";
const jobId = "job_00000000000000aa";
const hello = { clusterId, who: { kind: "node" as const, id: "node_00000000000000aa", incarnation: 1, pid: process.pid } };

interface Said {
  readonly method: string;
  readonly args: unknown;
  readonly peer: Peer;
}

let dir: string;
let daemon: Server;
let said: Said[];
let listeners: (() => void)[];
const children: ChildProcess[] = [];

const startDaemon = (orphanGraceMs: number) =>
  serve({
    path: join(dir, "n.sock"),
    hello,
    handler(call: IncomingCall) {
      said.push({ method: call.method, args: call.args, peer: call.peer });
      queueMicrotask(() => {
        for (const wake of listeners.splice(0)) wake();
      });
      return call.method === "host.register" ? { nodeId: hello.who.id, orphanGraceMs } : call.method === "host.leasePorts" ? [1, 2] : null;
    },
  });

/** The next message of this kind that nobody took yet. */
async function heard(method: string): Promise<Said> {
  for (;;) {
    const at = said.findIndex((each) => each.method === method);
    if (at >= 0) return said.splice(at, 1)[0] as Said;
    await new Promise<void>((resolve) => listeners.push(resolve));
  }
}

function startHost(): ChildProcess {
  const log = (name: string) => openSync(join(dir, name), "a");
  const child = spawn(process.execPath, [hostEntry], {
    stdio: ["ignore", log("out.log"), log("err.log")],
    env: {
      PATH: process.env["PATH"],
      [hostEnvironment.clusterId]: clusterId,
      [hostEnvironment.nodeId]: hello.who.id,
      [hostEnvironment.processId]: "proc_00000000000000aa",
      [hostEnvironment.headAddress]: "127.0.0.1:1",
      [hostEnvironment.socketDir]: dir,
      [hostEnvironment.storeDir]: join(dir, "store"),
      [hostEnvironment.nodeSocket]: join(dir, "n.sock"),
    },
  });
  children.push(child);
  return child;
}

const specOf = (args: readonly unknown[], more: Partial<ActorSpec> = {}): ActorSpec => ({
  actorId: ActorId.create(systemRandom),
  incarnation: 1,
  jobId,
  language: "node",
  module: new URL("./fixtures/counter.ts", import.meta.url).href,
  name: "one",
  exportName: "Counter",
  args: encodeValue(args),
  concurrency: 1,
  concurrencyGroups: {},
  pendingCallsMax: 100,
  env: { COUNTER_ENV: "set", SLIME_GANG_RANK: "3", SLIME_GANG_SIZE: "4" },
  cwd: dir,
  resources: {},
  gpus: [],
  placement: null,
  ...more,
});

async function hosted(
  args: readonly unknown[],
  more: Partial<ActorSpec> = {},
): Promise<{ child: ChildProcess; caller: Peer; daemonSide: Peer; spec: ActorSpec; socketPath: string }> {
  const child = startHost();
  const { peer } = await heard("host.register");
  const spec = specOf(args, more);
  await peer.call("host.assign", spec);
  const alive = await heard("host.alive");
  const { socketPath } = alive.args as { socketPath: string };
  const caller = await connect(socketPath, { hello: { clusterId, who: { kind: "tool", id: "t", incarnation: 0, pid: process.pid } } });
  return { child, caller, daemonSide: peer, spec, socketPath };
}

const gone = (pid: number): boolean => {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ");
  } catch {
    return true;
  }
};

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "slime-host-"));
  said = [];
  listeners = [];
  daemon = await startDaemon(60_000);
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await daemon.close();
  rmSync(dir, { recursive: true, force: true });
});

it("a host registers idle, becomes a TypeScript actor once, serves it, and ends in order when asked", async () => {
  const { child, caller, daemonSide, spec } = await hosted([5]);
  expect(caller.remote.who).toMatchObject({ kind: "actor", id: spec.actorId, incarnation: 1 });
  expect(await caller.call("add", [2])).toBe(7);
  expect(await caller.call("who", [])).toMatchObject({ pid: child.pid, rank: 3, env: "set", cwd: dir, call: "who" });
  expect(await caller.call("slime.describe", [])).toMatchObject({ className: "Counter", pending: 0, running: [] });
  await expect(caller.call("total", [])).rejects.toMatchObject({ code: "actor.no_method" });
  await expect(daemonSide.call("host.assign", specOf([1]))).rejects.toMatchObject({ code: "conflict" });
  const grandchild = (await caller.call("child", [])) as number;
  const hanging = caller.call("hang", []).catch((error: unknown) => error);
  expect((await heard("host.phase")).args).toMatchObject({ phase: "hanging", waitsFor: "the end" });
  expect(await caller.call("health", [], { urgent: true })).toBe("ok");
  const exited = once(child, "exit");
  await daemonSide.call("host.shutdown", { graceMs: 10_000, reason: "test" });
  expect((await heard("host.exit")).args as HostExit).toMatchObject({ reason: "shutdown", exitCode: 0 });
  expect(await exited).toEqual([0, null]);
  expect(await hanging).toBeInstanceOf(Error);
  expect(gone(grandchild)).toBe(true);
  expect(readFileSync(join(dir, "out.log"), "utf8")).toContain("counter is shut down");
});

it("a constructor that throws is reported with its stack, and the process ends with 1", async () => {
  const child = startHost();
  const { peer } = await heard("host.register");
  const exited = once(child, "exit");
  await peer.call("host.assign", specOf([-1]));
  const { failure } = (await heard("host.failed")).args as HostFailed;
  expect(failure).toMatchObject({
    code: "actor.creation",
    cause: { code: "call.failed", message: "RangeError: a counter starts at 0 or above" },
  });
  expect(JSON.stringify(failure)).toContain("counter.ts");
  expect(await exited).toEqual([1, null]);
});

it("a module that is not there, or lacks the class, is a creation failure that says so", async () => {
  startHost();
  const { peer } = await heard("host.register");
  await peer.call("host.assign", specOf([1], { exportName: "Nothing" }));
  const { failure } = (await heard("host.failed")).args as HostFailed;
  expect(JSON.stringify(failure)).toContain("exports no class Nothing; it exports Counter");
});

it("an exception nobody caught ends the process with the reason on stderr", async () => {
  const { child, caller } = await hosted([0]);
  const exited = once(child, "exit");
  caller.send("throwLater", []);
  expect(await exited).toEqual([70, null]);
  expect(readFileSync(join(dir, "err.log"), "utf8")).toMatch(/uncaught exception: Error: nobody caught this\n\s+at /);
});

it("survives its daemon, registers with the next what it is, and ends itself without one", async () => {
  const { child, caller, spec, socketPath } = await hosted([0]);
  await daemon.close();
  expect(await caller.call("add", [1])).toBe(1);
  daemon = await startDaemon(300);
  const again = await heard("host.register");
  expect((again.args as HostRegistration).actor).toEqual({ actorId: spec.actorId, incarnation: 1, jobId, state: "alive", socketPath });
  expect(await caller.call("add", [1])).toBe(2);
  const grandchild = (await caller.call("child", [])) as number;
  const exited = once(child, "exit");
  await daemon.close();
  expect(await exited).toEqual([75, null]);
  expect(gone(grandchild)).toBe(true);
});

it("large results lie in the store, by descriptor", async () => {
  const { caller } = await hosted([0]);
  const hooked = await connect(join(dir, `a-${(caller.remote.who.id as string).slice(6)}-1.sock`), {
    hello,
    hooks: { encodeSpecial: () => undefined, decodeSpecial: (tag, payload) => ({ tag, payload }) },
  });
  expect(await hooked.call("fill", [100_000])).toMatchObject({ tag: "__stored", payload: { jobId } });
  expect(await hooked.call("fill", [10])).toEqual(new Float32Array(10).fill(1));
});

it("an actor that exits ends after what it has to do, as its own wish", async () => {
  const { child, caller } = await hosted([0]);
  const exited = once(child, "exit");
  await caller.call("leave", []);
  expect((await heard("host.exit")).args).toMatchObject({ reason: "self", exitCode: 0 });
  expect(await exited).toEqual([0, null]);
});
